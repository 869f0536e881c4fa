"""Decides what an engine runs in its next step."""
