"""Remembers the engines of a group, the `n` sequences of one request, by name: all go to the
engines of the first one.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from shared.bounded import remember

_KEPT: Final = 16_384
_LIMIT_S: Final = 60.0  # after that the cached prefix may be gone; ids may be used again


@dataclass(slots=True)
class Groups:
    """The latest groups, each with the time of its last placement. Bounded."""

    _placed: OrderedDict[str, tuple[str | None, str, float]] = field(default_factory=OrderedDict)

    def placed(self, group_id: str, prefill: str | None, decode: str, now: float) -> None:
        """Notes where a sequence was placed; `prefill` None: co-located."""
        remember(self._placed, group_id, (prefill, decode, now), _KEPT)

    def engines(self, group_id: str, now: float) -> tuple[str | None, str] | None:
        """Names of the prefill (None when co-located) and decode engine; None after 60 s."""
        prefill, decode, placed_at_s = self._placed.get(group_id, (None, "", now))
        return None if not decode or now - placed_at_s > _LIMIT_S else (prefill, decode)
