"""What the planner knows: engines, what was placed on them, and how it ended."""
