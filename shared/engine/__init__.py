"""The engine host around vLLM: the same for prefill and decode."""
