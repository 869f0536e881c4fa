"""Simulates a fleet on virtual time: engines, links and requests, under any serving system."""
