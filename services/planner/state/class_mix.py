"""Which classes a fleet serves together, while more is asked for than it can do. Pure.

Engines take steps no longer than the tightest pace that they promised. A pace that is hardly longer
than an idle step leaves hardly any of an engine's time to others, however few requests have it: one
such class can take more from all others than it gives. Engines are taken as fluids, in two pools of
which each serves paces from one of its own on. A pool is filled with the classes that complete the
most value in a second of work (a fractional knapsack; Dantzig, "Discrete-Variable Extremum
Problems", 1957). Classes with tighter paces than the best pools serve are left out.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from services.planner.state.demand import Demand
from services.planner.tuning import (
    ENOUGH_SERVED,
    FRESH_CLASS,
    LEAST_LEFT,
    MIX_MEMORY_S,
    SHARED_DECODES,
    WORTH_LEAVING_OUT,
)
from shared.batch_time import StepTable
from shared.bounded import remember

_KEPT_CLASSES: Final = 256
_CLASSES: Final = 16  # the ones that were asked for last are looked at
_POOL_SIZES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one request takes of a fleet: `work_s` of an engine beside others, and the share of that
    engine's time that its pace `leaves` to all work.
    """

    work_s: float
    leaves: float


def work_of(
    demand: Demand, output_tokens: int, prompt_s: float, alone_s: float, table: StepTable
) -> Work:
    """`prompt_s` is what the prompt takes among others, `alone_s` the pace of an idle engine.

    By deadlines, the time until the first token is due is the others' as well.
    """
    context = float(demand.prompt_tokens)
    shared_s, one_s = (
        table.decodes_s(SHARED_DECODES, SHARED_DECODES * context),
        table.decodes_s(1, context),
    )
    token_s = (
        (shared_s - one_s) / (SHARED_DECODES - 1) * (1 + demand.drafts.tokens) / demand.drafts.gain
    )
    pace_s = demand.tpot_s
    if demand.grace.by_deadlines and math.isfinite(demand.due_s):
        pace_s += (demand.due_s - demand.arrived_at_s) / output_tokens
    return Work(work_s=prompt_s + output_tokens * token_s, leaves=1.0 - alone_s / pace_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassWork:
    """What is asked for of one class: requests in a second, the engine's seconds that each takes
    beside others, its value, and the share of an engine's time that its pace leaves to all work.
    """

    name: str
    per_s: float
    work_s: float
    value: float
    leaves: float


@dataclass(slots=True)
class _Asked:
    """Means over the requests of one class, and how many came, fading with time."""

    requests: float = 0.0
    at_s: float = 0.0
    seen: int = 0
    work_s: float = 0.0
    value: float = 0.0
    leaves: float = 0.0

    def faded(self, now: float) -> float:
        return self.requests * math.exp((self.at_s - now) / MIX_MEMORY_S)


class ClassMix:
    """Learns what is asked for, from every request once. Bounded."""

    def __init__(self) -> None:
        self._classes: OrderedDict[str, _Asked] = OrderedDict()
        self._began_s = math.inf

    def asked(self, name: str, work: Work, value: float, now: float) -> None:
        """A request of this class was decided on."""
        self._began_s = min(self._began_s, now)
        one = self._classes.get(name) or _Asked()
        one.requests, one.at_s, one.seen = one.faded(now) + 1.0, now, one.seen + 1
        fresh = max(FRESH_CLASS, 1.0 / one.seen)
        one.work_s += fresh * (work.work_s - one.work_s)
        one.value += fresh * (value - one.value)
        one.leaves += fresh * (max(LEAST_LEFT, work.leaves) - one.leaves)
        remember(self._classes, name, one, _KEPT_CLASSES)

    def left_out(self, engines: int, now: float) -> frozenset[str]:
        """Classes that so many engines should promise nothing at present."""
        if len(self._classes) < 2:
            return frozenset()
        counted_s = MIX_MEMORY_S * -math.expm1(-max(1.0, now - self._began_s) / MIX_MEMORY_S)
        latest = list(self._classes.items())[-_CLASSES:]
        return left_out(
            [
                ClassWork(
                    name=name,
                    per_s=one.faded(now) / counted_s,
                    work_s=one.work_s,
                    value=one.value,
                    leaves=one.leaves,
                )
                for name, one in latest
            ],
            engines,
        )


def left_out(classes: Sequence[ClassWork], engines: int) -> frozenset[str]:
    """The classes with paces too tight to be worth what they take from the others."""
    shares = sorted({one.leaves for one in classes})
    if len(shares) < 2 or engines == 0:
        return frozenset()
    if sum(one.per_s * one.work_s for one in classes) <= engines * shares[0]:
        return frozenset()  # all fit beside the tightest pace: most rounds end here
    by_gain = sorted(classes, key=lambda one: one.work_s / max(one.value, 1e-9))
    all_together = _value_per_s(by_gain, shares, engines)
    if all_together >= ENOUGH_SERVED * sum(one.per_s * one.value for one in classes):
        return frozenset()
    found, best = shares[0], WORTH_LEAVING_OUT * all_together
    for place, least in enumerate(shares[1:], start=1):
        value = _value_per_s(by_gain, shares[place:], engines)
        if value > best:
            found, best = least, value
    return frozenset(one.name for one in classes if one.leaves < found)


def _value_per_s(by_gain: Sequence[ClassWork], shares: Sequence[float], engines: int) -> float:
    """The most that the fleet completes with classes that leave `shares[0]` or more."""
    return max(
        _filled(by_gain, tight=shares[0], loose=loose, times=(pool, engines - pool))
        for loose in shares
        for pool in _pool_sizes(engines)
    )


def _pool_sizes(engines: int) -> Iterator[int]:
    steps = min(engines, _POOL_SIZES)
    return (max(1, round(engines * step / steps)) for step in range(1, steps + 1))


def _filled(
    by_gain: Sequence[ClassWork], *, tight: float, loose: float, times: tuple[int, int]
) -> float:
    """Value in a second of two pools of so many engines, for paces that leave `tight` or more and
    for those that leave `loose` or more; what both could serve goes to the second one first.
    """
    here, there, value = times[0] * tight, times[1] * loose, 0.0
    for one in by_gain:
        if one.leaves < tight:
            continue
        wanted = one.per_s * one.work_s
        given = min(there, wanted) if one.leaves >= loose else 0.0
        there -= given
        more = min(here, wanted - given)
        here -= more
        served = (given + more) / wanted if wanted > 0 else 1.0
        value += served * one.per_s * one.value
    return value
