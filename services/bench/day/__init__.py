"""A day in the life of a node: a bursty load, every decision kept, every miss given its cause."""
