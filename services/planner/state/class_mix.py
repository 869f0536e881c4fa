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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.planner.state import pools
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
from shared.batch_time.table import FloatArray
from shared.bounded import remember
from shared.scheduling.speculation import Alone

_KEPT_CLASSES: Final = 256
_CLASSES: Final = 16  # the most recently requested classes are considered
_POOL_SIZES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one request costs: `work_s` seconds of an engine in a full batch. While it decodes, for
    `decodes_s`, its TPOT `leaves` this share of the engine's time to all work. Its own first token
    may wait for `waits_s`; without a TTFT target (`has_ttft`) it may come at any time.
    """

    work_s: float
    leaves: float
    decodes_s: float
    waits_s: float
    has_ttft: bool = True


def work_of(
    demand: Demand, output_tokens: int, prompt_s: float, alone: Alone, table: StepTable
) -> Work:
    """The work of one request. `prompt_s` is the time of its prompt in full steps, `alone` the
    fastest decoding on an idle engine. A step with drafts may last as long as its mean tokens take
    at the pace, but no longer than the pace and the slack of the answer's start.

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
    likely_s = demand.grace.pace_s + demand.grace.later_s
    longest_s = min(pace_s * alone.gain, likely_s)
    return Work(
        work_s=prompt_s + output_tokens * token_s,
        leaves=1.0 - alone.tpot_s * alone.gain / longest_s,
        decodes_s=output_tokens * pace_s if math.isfinite(pace_s) else 0.0,
        waits_s=min(MIX_MEMORY_S, demand.due_s - demand.arrived_at_s),
        has_ttft=math.isfinite(demand.due_s),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassWork:
    """The demand of one class: requests per second, and the work and value of each (see `Work`)."""

    name: str
    per_s: float
    work_s: float
    value: float
    leaves: float
    decodes_s: float
    waits_s: float


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
    decodes_s: float = 0.0
    waits_s: float = 0.0
    has_ttft: bool = True

    def faded(self, now: float) -> float:
        return self.requests * math.exp((self.at_s - now) / MIX_MEMORY_S)


class ClassMix:
    """Learns the demand of each class, from every request once. Bounded."""

    def __init__(self) -> None:
        self._classes: OrderedDict[str, _Asked] = OrderedDict()
        self._crowding_since_s: dict[str, float] = {}
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
        one.decodes_s += fresh * (work.decodes_s - one.decodes_s)
        one.waits_s += fresh * (work.waits_s - one.waits_s)
        one.has_ttft = work.has_ttft
        remember(self._classes, name, one, _KEPT_CLASSES)

    def crowding_classes(self, engines: int, now: float) -> frozenset[str]:
        """Classes that a fleet of so many engines should promise nothing now: those that have
        crowded others out for as long as their own first tokens may wait, since a shorter overload
        may end before they are due; those without a TTFT target at once, since they can wait.
        """
        found = crowding_classes(self._work(now), engines) if len(self._classes) > 1 else ()
        self._crowding_since_s = {one: self._crowding_since_s.get(one, now) for one in found}
        return frozenset(
            one
            for one, since_s in self._crowding_since_s.items()
            if now - since_s >= self._classes[one].waits_s or not self._classes[one].has_ttft
        )

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
                decodes_s=one.decodes_s,
                waits_s=one.waits_s,
            )
            for name, one in latest
        ]


def crowding_classes(classes: Sequence[ClassWork], engines: int) -> frozenset[str]:
    """The classes that, for their tight TPOT, cost others more value than they add."""
    shares = sorted({one.leaves for one in classes})
    if engines == 0 or _all_fit(classes, shares, engines):
        return frozenset()
    best = pools.without_tight(
        _by_gain(classes),
        np.array(shares),
        _pool_sizes(engines),
        engines,
        _enough(classes),
        WORTH_LEAVING_OUT,
    )
    return frozenset(one.name for one in classes if one.leaves < shares[best])


def tight_pool(classes: Sequence[ClassWork], engines: int) -> TightPool | None:
    """The pool of the tightest TPOTs with which the fleet completes the most value. None where all
    classes on all engines complete ENOUGH_SERVED of it, or the pool not WORTH_LEAVING_OUT times it.
    """
    shares = sorted({one.leaves for one in classes})
    if engines < 2 or _all_fit(classes, shares, engines):
        return None
    sizes = _pool_sizes(engines - 1)
    loose, size = pools.kept_apart(
        _by_gain(classes), np.array(shares), sizes, engines, _enough(classes), WORTH_LEAVING_OUT
    )
    if loose == 0:
        return None
    names = frozenset(one.name for one in classes if one.leaves < shares[loose])
    return TightPool(classes=names, engines=int(sizes[size]))


def prepare() -> None:
    """Compiles the search, so that no round waits for it."""
    classes = [
        ClassWork(
            name=str(leaves),
            per_s=1.0,
            work_s=10.0,
            value=1.0,
            leaves=leaves,
            decodes_s=1.0,
            waits_s=1.0,
        )
        for leaves in (0.1, 0.9)
    ]
    crowding_classes(classes, 2)
    tight_pool(classes, 2)


def _all_fit(classes: Sequence[ClassWork], shares: Sequence[float], engines: int) -> bool:
    """Whether all fit beside the tightest TPOT, or all have the same: most rounds end here."""
    work_s = sum(one.per_s * one.work_s for one in classes)
    return len(shares) < 2 or work_s <= engines * shares[0]


def _enough(classes: Sequence[ClassWork]) -> float:
    """The value per second of a fleet that serves nearly all requests."""
    return ENOUGH_SERVED * sum(one.per_s * one.value for one in classes)


def _by_gain(classes: Sequence[ClassWork]) -> FloatArray:
    """Rows of PER_S to WAITS_S, those of the greatest value per second of work first."""
    ordered = sorted(classes, key=lambda one: one.work_s / max(one.value, 1e-9))
    return np.array(
        [
            (one.per_s, one.work_s, one.value, one.leaves, one.decodes_s, one.waits_s)
            for one in ordered
        ]
    )


def _pool_sizes(engines: int) -> pools.Sizes:
    steps = min(engines, _POOL_SIZES)
    return np.array([max(1, round(engines * step / steps)) for step in range(1, steps + 1)])
