"""Decides waiting requests in rounds, and promises only targets that can be kept."""
