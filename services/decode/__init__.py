"""KV cache to tokens: the engine host in the decode role."""
