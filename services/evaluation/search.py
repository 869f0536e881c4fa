"""The highest rate at which a system keeps enough of its promises, in whichever setting. Pure: it
asks for points and is given them.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from services.evaluation.points import Point, Task, rounded

TaskOf = Callable[[str, float], Task]  # of a setting and a rate for each engine

_STEP = 1.5  # from the first rate on, until one passes and one fails
_LEAST_SHARE = 1 / 30  # of the first rate: below it there is no capacity to speak of
_LEAST_SETTINGS = 3  # stay in the race, however many failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`rate`: programs per second for each engine, the highest one that passed, 0 where none did;
    `setting`: the one that passed, or the best of those that failed; `failed`: the lowest rate at
    which all failed. `points` are those that were asked for.
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
    """From `first` up or down until one rate passes and one fails, then bisects on the logarithm,
    until the two are within `ratio`. Nothing passes at `bound`.

    One setting that passes is enough at a rate. When all fail, those that kept most or held out
    longest go on, a third of them, and the one that passed last. What failed at a rate is not tried
    at a higher one. Raises ValueError without settings or with a ratio that is not above 1.
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
    """Down in ever longer steps: where even little fails, next to nothing may pass."""
    if not low:
        return rounded(first if high > first else high * (high / first) / _STEP)
    if high == bound and low * _STEP < bound:
        return rounded(low * _STEP)
    return rounded(math.sqrt(low * high))


class _Race:
    """Settings, the most promising first."""

    def __init__(self, settings: Sequence[str]) -> None:
        self.points: list[Point] = []
        self._order = list(settings)
        self._failed: dict[str, float] = {}
        self._passed = ""

    @property
    def best(self) -> str:
        return self._order[0]

    def open(self, rate: float) -> list[str]:
        """Those that have not failed at this rate or below."""
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
        """A third goes on."""
        tried = sorted(failed, key=lambda one: _merit(failed[one]), reverse=True)
        stay = tried[: max(_LEAST_SETTINGS, len(tried) // 3)]
        if self._passed in tried:  # far beyond what it carries it may have failed first
            stay = [self._passed, *(one for one in stay if one != self._passed)]
        rest = [one for one in self._order if one not in failed]
        self._order = stay + rest


def _merit(failed: Point) -> tuple[bool, float]:
    """Of one that passed a lower bar, what it may have kept; a run that passes none ends once that
    is certain: the later, the better.
    """
    rule, bars = failed.task.rule, failed.task.bars
    if bars and failed.passes(rule, min(bars)):
        return True, failed.bounds(rule).at_most
    return False, failed.ended_s


def _try(
    race: _Race, task_of: TaskOf, rate: float, bar: float
) -> Generator[Task, Point, str | None]:
    """The setting that passes at this rate, if there is one."""
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
