"""What will happen when, on a virtual clock. Knows nothing of what it is that happens."""

import heapq
import math
from collections.abc import Callable


class Timeline:
    """Things happen in the order of their times, and at the same time in that of their coming."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []

    @property
    def next_s(self) -> float:
        """Infinite where nothing is to come."""
        return self._events[0][0] if self._events else math.inf

    def at(self, at_s: float, happens: Callable[..., None], *given: object) -> None:
        """`happens(*given, now)` at that time."""
        self._numbers += 1
        heapq.heappush(self._events, (at_s, self._numbers, happens, given))

    def go_on(self) -> float:
        """All that happens at the next time at which something does; returns that time."""
        now = self.now = self._events[0][0]
        while self._events and self._events[0][0] <= now:
            _, _, happens, given = heapq.heappop(self._events)
            happens(*given, now)
        return now
