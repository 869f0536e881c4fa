"""Models as folders on disk: the embedded one, a tiny one for tests, or what the operator names."""

from shared.models.resolve import EMBEDDED, TINY, cache_folder, is_local, resolve_model

__all__ = ["EMBEDDED", "TINY", "cache_folder", "is_local", "resolve_model"]
