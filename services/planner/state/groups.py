"""Where the sequences of one request (`n` of them) go: to the engines of the first one. Bounded; it
knows names, not engines.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from shared.bounded import remember

_KEPT: Final = 16_384
_LIMIT_S: Final = 60.0  # by then the first sequence's prefix may be gone; ids may be used again


@dataclass(slots=True)
class Groups:
    """The latest groups, each with the time when one of it was last placed."""

    _placed: OrderedDict[str, tuple[str | None, str, float]] = field(default_factory=OrderedDict)

    def placed(self, group_id: str, prefill: str | None, decode: str, now: float) -> None:
        """`prefill` None: co-located."""
        remember(self._placed, group_id, (prefill, decode, now), _KEPT)

    def engines(self, group_id: str, now: float) -> tuple[str | None, str] | None:
        """Names of the prefill (None when co-located) and decode engine, while they are fresh."""
        prefill, decode, placed_at_s = self._placed.get(group_id, (None, "", now))
        return None if not decode or now - placed_at_s > _LIMIT_S else (prefill, decode)
