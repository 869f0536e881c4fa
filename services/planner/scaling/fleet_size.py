"""Searches the smallest fleet that keeps enough requests of a window.

The searches get the outcome of the window on a fleet of some size from `Replays`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from services.planner.scaling.replay import Replayed
from services.planner.tuning import NO_BETTER


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSize:
    """Engines by role; without prefill engines, decode engines compute the prompts."""

    prefill: int
    decode: int

    @property
    def engines(self) -> int:
        return self.prefill + self.decode

    def at_least(self, other: "FleetSize") -> "FleetSize":
        """The greater of both sizes in each role."""
        return FleetSize(
            prefill=max(self.prefill, other.prefill), decode=max(self.decode, other.decode)
        )

    def divided(self, by: int) -> "FleetSize":
        return FleetSize(prefill=math.ceil(self.prefill / by), decode=math.ceil(self.decode / by))

    def times(self, factor: int) -> "FleetSize":
        return FleetSize(prefill=self.prefill * factor, decode=self.decode * factor)

    def __str__(self) -> str:
        return f"prefill={self.prefill},decode={self.decode}"


Replays = Callable[[FleetSize], Replayed]


def grown(replays: Replays, start: FleetSize, goal: float, most: int) -> FleetSize:
    """Greedily adds engines to `start` until `goal` is attained, first to the role that more
    requests missed for. Where `most` engines do not attain it, adds only engines that help.
    """
    size, known = start, replays(start)
    while known.attained < goal and size.engines < most:
        for more in _larger(size, known):
            tried = replays(more)
            if tried.attained > known.attained + NO_BETTER:
                size, known = more, tried
                break
        else:
            break
    return shrunk(replays, size, start, min(goal, known.attained))


def _larger(size: FleetSize, known: Replayed) -> list[FleetSize]:
    """Larger sizes to try: more engines of the role that was shorter, of the other, of both. The
    step grows with the number of missed requests.
    """
    decode = replace(size, decode=size.decode + _step(size.decode, known.short_of_decode, known))
    if not size.prefill:
        return [decode]
    step = _step(size.prefill, known.short_of_prefill, known)
    prefill = replace(size, prefill=size.prefill + step)
    both = decode.at_least(prefill)
    if known.short_of_decode >= known.short_of_prefill:
        return [decode, prefill, both]
    return [prefill, decode, both]


def _step(engines: int, missed: int, known: Replayed) -> int:
    return max(1, int(engines * missed / max(1, known.judged) / 2))


def shrunk(replays: Replays, start: FleetSize, least: FleetSize, goal: float) -> FleetSize:
    """Removes engines from `start` while `goal` is attained: halves first, then single engines of
    the role where a loss costs less. Keeps `least`.
    """
    size = start
    while (half := size.divided(2).at_least(least)) != size and replays(half).attained >= goal:
        size = half
    while True:
        fewer = [
            FleetSize(prefill=size.prefill - 1, decode=size.decode),
            FleetSize(prefill=size.prefill, decode=size.decode - 1),
        ]
        able = [(replays(one).attained, one) for one in fewer if one.at_least(least) == one]
        kept = [(attained, one) for attained, one in able if attained >= goal]
        if not kept:
            return size
        size = max(kept, key=lambda pair: pair[0])[1]
