"""Loads on which other systems keep more than ours, drawn from a wide space and searched for."""
