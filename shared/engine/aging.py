"""Best effort that has waited for long takes its turn as if it had asked for nothing. No clock."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

WAIT_S: Final = 5.0  # a first token that nobody promised is worth waiting for so long


@dataclass(slots=True)
class Aging:
    """Best-effort requests of one engine, in the order in which they came.

    One at a time takes its turn: it costs those who asked for nothing a little, and a crowd of
    them cannot push aside more than that.
    """

    _waiting: "OrderedDict[str, float]" = field(default_factory=OrderedDict)
    _turn: str | None = None

    def came(self, request_id: str, now: float) -> None:
        self._waiting[request_id] = now

    def left(self, request_id: str) -> None:
        """Unknown ones are no matter."""
        self._waiting.pop(request_id, None)
        if request_id == self._turn:
            self._turn = None

    def next(self, now: float) -> str | None:
        """The request whose turn begins now."""
        if self._turn is not None or not self._waiting:
            return None
        request_id, came_s = next(iter(self._waiting.items()))
        if now - came_s < WAIT_S:
            return None
        self._turn = request_id
        del self._waiting[request_id]
        return request_id
