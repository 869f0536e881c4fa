"""One machine: starting all parts, watching them, showing that they work."""
