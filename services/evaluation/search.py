"""Finds the highest rate at which a system keeps enough of its targets, in its best setting.

A search is a generator that yields tasks and receives points.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from services.evaluation.points import Point, Task, rounded

TaskOf = Callable[[str, float], Task]  # from a setting and a rate per engine

_STEP = 1.5  # factor between rates until one passes and one fails
_LEAST_SHARE = 1 / 30  # of the first rate: below it the capacity counts as 0
_LEAST_SETTINGS = 3  # settings that stay in the race, however many failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`rate`: the highest one that passed, programs per second per engine, 0 where none did.
    `setting`: the one that passed, or the best of those that failed. `failed`: the lowest rate at
    which all failed. `points`: all that were asked for.
    """

    rate: float
    setting: str
    failed: float
    points: tuple[Point, ...]


Search = Generator[Task, Point, Found]


def capacity(
    task_of: TaskOf,
    settings: Sequence[str],
    *,
    bar: float,
    first: float,
    bound: float,
    ratio: float,
) -> Search:
    """Goes up or down from `first` until one rate passes and one fails, then bisects on the
    logarithm until the two are within `ratio`. `bound` counts as failed.

    One setting that passes is enough at a rate. When all fail, half of them goes on (those that
    kept most or lasted longest), and the one that passed last. A setting that failed at a rate is
    not tried at a higher one. Raises ValueError without settings or with a ratio that is not above
    1.
    """
    if not settings or ratio <= 1:
        raise ValueError("a search needs a setting, and a ratio above 1")
    race = _Race(settings)
    low, high, first, setting = 0.0, bound, rounded(first), ""
    while high > max(low * ratio, first * _LEAST_SHARE):
        rate = _next(low, high, first, bound)
        passed = yield from _try(race, task_of, rate, bar)
        if passed:
            low, setting = rate, passed
        else:
            high = rate
    points = tuple(race.points)
    return Found(rate=low, setting=setting or race.best, failed=high, points=points)


def _next(low: float, high: float, first: float, bound: float) -> float:
    """The next rate. Downward steps grow, because where even little fails the capacity may be near
    0.
    """
    if not low:
        return rounded(first if high > first else high * (high / first) / _STEP)
    if high == bound and low * _STEP < bound:
        return rounded(low * _STEP)
    return rounded(math.sqrt(low * high))


class _Race:
    """Settings, ordered from the most promising."""

    def __init__(self, settings: Sequence[str]) -> None:
        self.points: list[Point] = []
        self._order = list(settings)
        self._failed: dict[str, float] = {}
        self._passed = ""

    @property
    def best(self) -> str:
        return self._order[0]

    def open(self, rate: float) -> list[str]:
        """The settings that have not failed at this rate or below."""
        return [one for one in self._order if self._failed.get(one, math.inf) > rate]

    def note(self, setting: str, point: Point, rate: float, *, passes: bool) -> None:
        self.points.append(point)
        if passes:
            self._order.remove(setting)
            self._order.insert(0, setting)
            self._passed = setting
        else:
            self._failed[setting] = min(rate, self._failed.get(setting, math.inf))

    def all_failed(self, failed: Mapping[str, Point]) -> None:
        """Keeps the better half of the settings that failed."""
        tried = sorted(failed, key=lambda one: _merit(failed[one]), reverse=True)
        stay = tried[: max(_LEAST_SETTINGS, len(tried) // 2)]
        if self._passed in tried:  # it may have failed first at a rate far beyond its capacity
            stay = [self._passed, *(one for one in stay if one != self._passed)]
        rest = [one for one in self._order if one not in failed]
        self._order = stay + rest


def _merit(failed: Point) -> tuple[bool, float]:
    """Ranks failed settings. First come those that passed a lower bar, by the share that they may
    have kept; then the others, by how much of the load they ran: a run ends once its failure is
    certain.
    """
    rule, bars = failed.task.rule, failed.task.bars
    if bars and failed.passes(rule, min(bars)):
        return True, failed.bounds(rule).at_most
    return False, failed.played


def _try(
    race: _Race, task_of: TaskOf, rate: float, bar: float
) -> Generator[Task, Point, str | None]:
    """The setting that passes at this rate; None where none does."""
    failed: dict[str, Point] = {}
    for setting in race.open(rate):
        task = task_of(setting, rate)
        point = yield task
        passes = bool(point.passes(task.rule, bar))
        race.note(setting, point, rate, passes=passes)
        if passes:
            return setting
        failed[setting] = point
    race.all_failed(failed)
    return None
