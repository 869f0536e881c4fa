"""Chooses the next rate to try, and computes the capacity from the rates tried."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_GROWTH: Final = 1.5
_CLOSE: Final = 0.05  # in attainment: a variant this close to the best one stays


@dataclass(slots=True)
class Bisection:
    """Bisection for the highest rate that passes: first by factors of 1.5, then geometric."""

    first_rps: float
    passed_rps: float | None = None
    failed_rps: float | None = None

    @property
    def next_rps(self) -> float:
        if self.passed_rps is None and self.failed_rps is None:
            return self.first_rps
        if self.failed_rps is None:
            return (self.passed_rps or 0.0) * _GROWTH
        if self.passed_rps is None:
            return self.failed_rps / _GROWTH
        return math.sqrt(self.passed_rps * self.failed_rps)

    def note(self, rate_rps: float, *, passes: bool) -> None:
        """Notes a result. A failure below a rate that passed is noise and is ignored."""
        if passes:
            self.passed_rps = max(rate_rps, self.passed_rps or 0.0)
            if self.failed_rps is not None and self.failed_rps <= self.passed_rps:
                self.failed_rps = None
        elif self.passed_rps is None or rate_rps > self.passed_rps:
            self.failed_rps = min(rate_rps, self.failed_rps or math.inf)


@dataclass(slots=True)
class Contender:
    """One system in a search, with variants of which the best counts."""

    name: str
    variants: tuple[str, ...]
    bisection: Bisection
    attainments: dict[float, dict[str, float]] = field(default_factory=dict)

    def note(self, rate_rps: float, attainments: Mapping[str, float], needed: float) -> None:
        """Notes a round, and drops variants that are clearly behind the best one."""
        best = max(attainments.values())
        self.attainments[rate_rps] = dict(attainments)
        self.variants = tuple(one for one in attainments if attainments[one] >= best - _CLOSE)
        self.bisection.note(rate_rps, passes=best >= needed)

    @property
    def best_variant(self) -> str:
        """The remaining variant with the greatest attainment in the last round."""
        last = list(self.attainments.values())[-1] if self.attainments else {}
        return max(self.variants, key=lambda one: last.get(one, 0.0))


def capacity(attainments: Mapping[float, float], needed: float) -> tuple[float, float | None]:
    """The highest rate with the `needed` attainment (0 if none), and the next higher rate tried.

    `attainments` are by rate; of several variants at one rate, the best one's.
    """
    passed = max((rate for rate, share in attainments.items() if share >= needed), default=0.0)
    above = min((rate for rate in attainments if rate > passed), default=None)
    return passed, above


def crossing(attainments: Mapping[float, float], needed: float) -> float:
    """The rate at which attainment, interpolated to the next rate tried, falls below `needed`."""
    passed, above = capacity(attainments, needed)
    if not passed or above is None:
        return passed
    high, low = attainments[passed], attainments[above]
    return passed + (above - passed) * (high - needed) / (high - low)
