"""Loads: requests with arrival times, generated or read from traces."""
