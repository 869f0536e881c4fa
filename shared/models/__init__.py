"""Models as folders on disk: the embedded one, a tiny one for tests, or what the operator names."""

from shared.models.resolve import EMBEDDED, TINY, is_local, resolve_model

__all__ = ["EMBEDDED", "TINY", "is_local", "resolve_model"]
