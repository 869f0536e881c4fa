"""Cached prefixes that engines export to others: when each is ready, or given up.

An export takes the step of its engine that runs when it comes and the next one, which computes one
token for it. That token itself is not simulated.
"""

from collections import defaultdict
from collections.abc import Callable

from shared.simulation.engine import SimEngine
from shared.simulation.timeline import Timeline
from shared.simulation.zero_load import first_token_s

_STEPS = 2
Told = Callable[[SimEngine, int, float], None]


class Exports:
    """The exports under way. Each ends by one call: `ready`, or `given_up` past its limit or with
    its engine. Both get the engine, the index of the request that pulls, and the time.
    """

    def __init__(self, timeline: Timeline, *, ready: Told, given_up: Told) -> None:
        self._timeline, self._ready, self._given_up = timeline, ready, given_up
        self._left: defaultdict[str, dict[int, int]] = defaultdict(dict)  # by engine, index

    def begin(self, source: SimEngine, index: int, limit_s: float, now: float) -> None:
        self._left[source.name][index] = _STEPS
        self._timeline.at(now + limit_s, self._end, self._given_up, source, index)
        self.idle(source, now)

    def step_ended(self, source: SimEngine, now: float) -> None:
        """Counts a step of the engine."""
        left = self._left[source.name]
        for index in list(left):
            left[index] -= 1
            if not left[index]:
                self._end(self._ready, source, index, now)

    def idle(self, source: SimEngine, now: float) -> None:
        """Ends the exports of an engine without a step after a step of one token."""
        if source.is_idle:
            ready_s = now + source.hardware.host_overhead_s + first_token_s(source.hardware, 1)
            for index in self._left[source.name]:
                self._timeline.at(ready_s, self._end, self._ready, source, index)

    def lost(self, source: SimEngine, now: float) -> None:
        """Gives up the exports of an engine that has died."""
        for index in list(self._left[source.name]):
            self._end(self._given_up, source, index, now)

    def _end(self, told: Told, source: SimEngine, index: int, now: float) -> None:
        if self._left[source.name].pop(index, None) is not None:
            told(source, index, now)
