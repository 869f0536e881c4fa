"""The planner's state: engines, the requests placed on them, and how these ended."""
