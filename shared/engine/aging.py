"""Best effort that has waited for long takes its turn among requests without targets. No clock."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

WAIT_S: Final = 5.0  # of a first token without a promise


@dataclass(slots=True)
class Aging:
    """Best-effort requests of one engine, in the order in which they came.

    One at a time takes its turn: that costs requests without targets a little, and many of them
    cannot cost more.
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
        """The request that takes its turn now; None while one has it or none has waited enough."""
        if self._turn is not None or not self._waiting:
            return None
        request_id, came_s = next(iter(self._waiting.items()))
        if now - came_s < WAIT_S:
            return None
        self._turn = request_id
        del self._waiting[request_id]
        return request_id
