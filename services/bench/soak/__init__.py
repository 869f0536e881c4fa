"""Runs a node under a bursty load, records all decisions, finds the cause of every miss."""
