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
    its engine. Both get the engine, the life that pulls, and the time.
    """

    def __init__(self, timeline: Timeline, *, ready: Told, given_up: Told) -> None:
        self._timeline, self._ready, self._given_up = timeline, ready, given_up
        self._left: defaultdict[str, dict[int, int]] = defaultdict(dict)  # steps, by engine, life

    def begin(self, source: SimEngine, life: int, limit_s: float, now: float) -> None:
        self._left[source.name][life] = _STEPS
        self._timeline.at(now + limit_s, self._end, self._given_up, source, life)
        self.idle(source, now)

    def step_ended(self, source: SimEngine, now: float) -> None:
        """Counts a step of the engine."""
        left = self._left[source.name]
        for life in list(left):
            left[life] -= 1
            if not left[life]:
                self._end(self._ready, source, life, now)

    def idle(self, source: SimEngine, now: float) -> None:
        """Ends the exports of an engine without a step after a step of one token."""
        if source.is_idle:
            ready_s = now + source.hardware.host_overhead_s + first_token_s(source.hardware, 1)
            for life in self._left[source.name]:
                self._timeline.at(ready_s, self._end, self._ready, source, life)

    def lost(self, source: SimEngine, now: float) -> None:
        """Gives up the exports of an engine that has died."""
        for life in list(self._left[source.name]):
            self._end(self._given_up, source, life, now)

    def _end(self, told: Told, source: SimEngine, life: int, now: float) -> None:
        if self._left[source.name].pop(life, None) is not None:
            told(source, life, now)
