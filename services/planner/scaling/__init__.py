"""Computes how many engines of each role the requests of the last minutes needed."""
