"""Moves KV blocks from one engine to another."""
