"""Measures the load that a serving system carries within the targets of its classes."""
