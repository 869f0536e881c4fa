"""Compares the simulator with the running system on the same load."""
