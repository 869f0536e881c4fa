"""Compares systems on loads whose prompts share prefixes."""
