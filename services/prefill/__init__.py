"""Prompt to KV cache: the engine host in the prefill role."""
