"""An event queue on a virtual clock."""

import heapq
import math
from collections.abc import Callable


class Timeline:
    """Events run in the order of their times, those of the same time in the order of adding."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []

    @property
    def next_s(self) -> float:
        """The time of the next event; infinite if there is none."""
        return self._events[0][0] if self._events else math.inf

    def at(self, at_s: float, happens: Callable[..., None], *given: object) -> None:
        """Adds an event that calls `happens(*given, now)` at `at_s`."""
        self._numbers += 1
        heapq.heappush(self._events, (at_s, self._numbers, happens, given))

    def go_on(self) -> float:
        """Runs all events of the next event time; returns that time."""
        now = self.now = self._events[0][0]
        while self._events and self._events[0][0] <= now:
            _, _, happens, given = heapq.heappop(self._events)
            happens(*given, now)
        return now
