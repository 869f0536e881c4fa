"""Counts the programs of a load that kept all their targets, also during the run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.simulation.judge import Mask, Rule, finished, kept
from shared.simulation.request_metrics import (
    ADMISSION,
    ARRIVES,
    BY_DEADLINES,
    FIRST,
    REFUSED,
    SLOW_WINDOWS,
    TTFT,
    WORST_LATE,
    RequestMetrics,
)
from shared.simulation.system import SimRequest
from shared.workloads.calls import Load

Counts = npt.NDArray[np.int64]
_ROUNDING_S = 1e-6
_LOOKS = 200  # checks of a run, while its load arrives


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds of the share of programs that keep their targets."""

    at_least: float
    at_most: float

    def passes(self, bar: float) -> bool | None:
        """Whether the share reaches the bar; None while it is uncertain."""
        if self.at_least >= bar:
            return True
        return False if self.at_most < bar else None


class Attainment:
    """Counts programs, or each call with `by_request`. A program is kept if all of its calls are,
    by one rule, with none refused. Programs outside of `counted` only load the fleet. `by_class`:
    the share of a load is that of the class that keeps least. A program has the class of its first
    call.
    """

    def __init__(
        self,
        load: Load,
        counted: slice = slice(None),
        *,
        by_request: bool = False,
        by_class: bool = False,
    ) -> None:
        self._by_request = by_request
        self._groups = _by_class(load, counted) if by_class else [_numbers(load, counted)]
        self._numbers = {program.program_id: number for number, program in enumerate(load)}
        self._calls = np.array([len(program.calls) for program in load])
        self._owners: npt.NDArray[np.int64] = np.zeros(self._calls.sum(), dtype=np.int64)
        self._known = 0

    def bounds(
        self, requests: Sequence[SimRequest], metrics: RequestMetrics, rule: Rule, now: float
    ) -> Bounds:
        """The bounds that are certain at `now`; where it is infinite, all open calls are missed."""
        owners, programs = self._owner_of(requests), len(self._calls)
        kept_calls = np.bincount(owners[kept(metrics, rule)], minlength=programs)
        missed_calls = np.bincount(owners[_missed(metrics, rule, now)], minlength=programs)
        found = [
            self._of_group(kept_calls[group], missed_calls[group], self._calls[group])
            for group in self._groups
        ]
        at_least = min(low for low, _ in found)
        at_most = at_least if np.isinf(now) else min(high for _, high in found)
        return Bounds(at_least=at_least, at_most=at_most)

    def _of_group(
        self, kept_calls: Counts, missed_calls: Counts, calls: Counts
    ) -> tuple[float, float]:
        """The least and the greatest final share of these programs; each array has one number for
        each program.
        """
        if self._by_request:
            whole = int(calls.sum())
            return int(kept_calls.sum()) / whole, 1 - int(missed_calls.sum()) / whole
        whole = len(calls)
        kept_ones, missed_ones = (kept_calls == calls).sum(), (missed_calls > 0).sum()
        return float(kept_ones) / whole, 1 - float(missed_ones) / whole

    def _owner_of(self, requests: Sequence[SimRequest]) -> npt.NDArray[np.int64]:
        for request in requests[self._known :]:
            self._owners[request.index] = self._numbers[request.program_id]
        self._known = len(requests)
        return self._owners[: self._known]


def _numbers(load: Load, counted: slice) -> Counts:
    return np.arange(len(load))[counted]


def _by_class(load: Load, counted: slice) -> list[Counts]:
    """The numbers of the counted programs of each class."""
    names = np.array([program.calls[0].class_name for program in load])
    numbers = _numbers(load, counted)
    return [numbers[names[numbers] == name] for name in sorted(set(names[numbers].tolist()))]


class EarlyEnd:
    """Ends a run as soon as it is certain for every bar whether the share reaches it."""

    def __init__(
        self, load: Load, attainment: Attainment, rule: Rule, bars: Sequence[float]
    ) -> None:
        self.ended_early = False
        self._attainment, self._rule, self._bars = attainment, rule, bars
        self._every_s = max(load[-1].arrives_s, 1.0) / _LOOKS
        self._looked_s = 0.0

    def __call__(self, requests: Sequence[SimRequest], metrics: RequestMetrics, now: float) -> bool:
        if now < self._looked_s + self._every_s:
            return False
        self._looked_s = now
        bounds = self._attainment.bounds(requests, metrics, self._rule, now)
        self.ended_early = all(bounds.passes(bar) is not None for bar in self._bars)
        return self.ended_early


def _missed(metrics: RequestMetrics, rule: Rule, now: float) -> Mask:
    """The calls that can no longer keep their targets."""
    due_s = metrics[:, ARRIVES] + metrics[:, TTFT] + _ROUNDING_S
    unstarted = np.isnan(metrics[:, FIRST]) & (due_s < now)
    refused = metrics[:, ADMISSION] == REFUSED
    ended: Mask = refused | unstarted | (finished(metrics) & ~kept(metrics, rule))
    late = metrics[:, WORST_LATE] > _ROUNDING_S
    if rule is Rule.DEADLINES:
        ended |= late
    elif rule is Rule.ASKED:
        ended |= late & (metrics[:, BY_DEADLINES] > 0)
    elif rule is Rule.WINDOWS:
        ended |= metrics[:, SLOW_WINDOWS] > 0
    return ended
