"""Estimates that the planner learns from outcomes and reports."""
