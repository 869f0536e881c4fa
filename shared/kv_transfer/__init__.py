"""How KV blocks get from one engine to another."""
