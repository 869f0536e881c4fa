"""One machine: starts all parts, watches them and shows that they work."""
