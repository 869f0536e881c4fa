"""What to run in the next step; pure."""
