"""Loads: what is asked of a fleet and when; generated, or read from traces."""
