"""What the planner learns from outcomes and reports."""
