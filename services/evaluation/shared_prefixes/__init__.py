"""Compares systems on loads of prompts that share prefixes."""
