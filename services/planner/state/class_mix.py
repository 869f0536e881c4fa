"""Chooses the classes that a fleet serves while it is overloaded.

The tightest promised TPOT bounds an engine's steps. A TPOT close to an idle step's time leaves
little of the engine to other requests, even where a single request has it: such a class can cost
more value than it adds. The fleet is modelled as a fluid in two pools, each with a tightest TPOT of
its own. Each pool is filled with the classes of the greatest value per second of work (fractional
knapsack; Dantzig, "Discrete-Variable Extremum Problems", 1957). Classes with a tighter TPOT than
the best pools serve are left out. Where it is best to keep some engines free of the tightest TPOTs,
classes with these stay on the other engines.
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
from shared.scheduling.speculation import Alone

_KEPT_CLASSES: Final = 256
_CLASSES: Final = 16  # the most recently requested classes are considered
_POOL_SIZES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one request costs: `work_s` seconds of an engine in a full batch. Its TPOT `leaves` this
    share of the engine's time to all work.
    """

    work_s: float
    leaves: float


def work_of(
    demand: Demand, output_tokens: int, prompt_s: float, alone: Alone, table: StepTable
) -> Work:
    """The work of one request. `prompt_s` is the time of its prompt in full steps, `alone` the
    fastest decoding on an idle engine. A step with drafts may last as long as its mean tokens take
    at the pace, but no longer than the pace and the slack of the answer's start where it can be
    that short.

    Under `pacing: deadlines` the time until the first token is due counts as slack of all tokens.
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
    step_s, longest_s = alone.tpot_s * alone.gain, pace_s * alone.gain
    likely_s = demand.grace.pace_s + demand.grace.later_s
    if step_s <= likely_s:
        longest_s = min(longest_s, likely_s)
    return Work(work_s=prompt_s + output_tokens * token_s, leaves=1.0 - step_s / longest_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassWork:
    """The demand of one class: requests per second, and the work and value of each (see `Work`)."""

    name: str
    per_s: float
    work_s: float
    value: float
    leaves: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TightPool:
    """Classes whose requests are promised on so many engines only."""

    classes: frozenset[str]
    engines: int


@dataclass(slots=True)
class _Asked:
    """EWMAs over the requests of one class, and their number with exponential decay."""

    requests: float = 0.0
    at_s: float = 0.0
    seen: int = 0
    work_s: float = 0.0
    value: float = 0.0
    leaves: float = 0.0

    def faded(self, now: float) -> float:
        return self.requests * math.exp((self.at_s - now) / MIX_MEMORY_S)


class ClassMix:
    """Learns the demand of each class, from every request once. Bounded."""

    def __init__(self) -> None:
        self._classes: OrderedDict[str, _Asked] = OrderedDict()
        self._began_s = math.inf

    def asked(self, name: str, work: Work, value: float, now: float) -> None:
        """Counts a request of this class that was decided."""
        self._began_s = min(self._began_s, now)
        one = self._classes.get(name) or _Asked()
        one.requests, one.at_s, one.seen = one.faded(now) + 1.0, now, one.seen + 1
        fresh = max(FRESH_CLASS, 1.0 / one.seen)
        one.work_s += fresh * (work.work_s - one.work_s)
        one.value += fresh * (value - one.value)
        one.leaves += fresh * (max(LEAST_LEFT, work.leaves) - one.leaves)
        remember(self._classes, name, one, _KEPT_CLASSES)

    def crowding_classes(self, engines: int, now: float) -> frozenset[str]:
        """Classes that a fleet of so many engines should promise nothing now."""
        if len(self._classes) < 2:
            return frozenset()
        return crowding_classes(self._work(now), engines)

    def tight_pool(self, engines: int, now: float) -> TightPool | None:
        """Where a fleet of so many engines should serve its tightest TPOTs now; None: anywhere."""
        if len(self._classes) < 2:
            return None
        return tight_pool(self._work(now), engines)

    def _work(self, now: float) -> list[ClassWork]:
        """The demand of the classes that were requested last."""
        counted_s = MIX_MEMORY_S * -math.expm1(-max(1.0, now - self._began_s) / MIX_MEMORY_S)
        latest = list(self._classes.items())[-_CLASSES:]
        return [
            ClassWork(
                name=name,
                per_s=one.faded(now) / counted_s,
                work_s=one.work_s,
                value=one.value,
                leaves=one.leaves,
            )
            for name, one in latest
        ]


def crowding_classes(classes: Sequence[ClassWork], engines: int) -> frozenset[str]:
    """The classes that, for their tight TPOT, cost others more value than they add."""
    shares = sorted({one.leaves for one in classes})
    if engines == 0 or _all_fit(classes, shares, engines):
        return frozenset()
    by_gain = _by_gain(classes)
    all_together = _value_per_s(by_gain, shares, engines)
    if all_together >= ENOUGH_SERVED * sum(one.per_s * one.value for one in classes):
        return frozenset()
    found, best = shares[0], WORTH_LEAVING_OUT * all_together
    for place, least in enumerate(shares[1:], start=1):
        value = _value_per_s(by_gain, shares[place:], engines)
        if value > best:
            found, best = least, value
    return frozenset(one.name for one in classes if one.leaves < found)


def tight_pool(classes: Sequence[ClassWork], engines: int) -> TightPool | None:
    """The pool of the tightest TPOTs with which the fleet completes the most value. None where all
    classes on all engines complete ENOUGH_SERVED of it, or the pool not WORTH_LEAVING_OUT times it.
    """
    shares = sorted({one.leaves for one in classes})
    if engines < 2 or _all_fit(classes, shares, engines):
        return None
    by_gain = _by_gain(classes)
    tight, found = shares[0], None
    spread = _filled(by_gain, tight=tight, loose=tight, times=(engines, 0))
    if spread >= ENOUGH_SERVED * sum(one.per_s * one.value for one in classes):
        return None
    best = WORTH_LEAVING_OUT * spread
    for loose in shares[1:]:
        for pool in _pool_sizes(engines - 1):
            value = _filled(by_gain, tight=tight, loose=loose, times=(pool, engines - pool))
            if value > best:
                names = frozenset(one.name for one in classes if one.leaves < loose)
                best, found = value, TightPool(classes=names, engines=pool)
    return found


def _all_fit(classes: Sequence[ClassWork], shares: Sequence[float], engines: int) -> bool:
    """Whether all fit beside the tightest TPOT, or all have the same: most rounds end here."""
    work_s = sum(one.per_s * one.work_s for one in classes)
    return len(shares) < 2 or work_s <= engines * shares[0]


def _by_gain(classes: Sequence[ClassWork]) -> list[ClassWork]:
    """Those of the greatest value per second of work first."""
    return sorted(classes, key=lambda one: one.work_s / max(one.value, 1e-9))


def _value_per_s(by_gain: Sequence[ClassWork], shares: Sequence[float], engines: int) -> float:
    """The greatest value per second with the classes that leave `shares[0]` or more."""
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
    """The value per second of two pools of `times` engines. The first serves classes that leave
    `tight` or more, the second those that leave `loose` or more and fills first.
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
