"""The smallest fleet that keeps enough of a load's promises, and how to split it. Pure: it asks for
points and is given them.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

from services.evaluation.points import Point, Task

TaskOf = Callable[[int, str], Task]  # of a number of engines and a setting
Labels = Callable[[int], Sequence[str]]  # settings with so many engines


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """`engines` None: not even the most are enough. `choices`: every setting of the smallest fleet,
    the best first; `fewer`: the best one with an engine less, as far as it is known to fail.
    """

    engines: int | None
    choices: tuple[Point, ...]
    fewer: Point | None


Sizing = Generator[Task, Point, Sized]


def smallest(labels: Labels, task_of: TaskOf, *, bar: float, most: int) -> Sizing:
    """Doubles the fleet until a setting passes, then halves the distance to the last that failed:
    more engines never carry less. The settings of the one that is left are simulated to the end.
    """
    failed, passed, fewer = 0, 0, None
    while not passed or passed - failed > 1:
        size = (failed + passed) // 2 if passed else min(most, max(1, 2 * failed))
        point = yield from _best_of(labels(size), task_of, size, bar)
        if point.passes(point.task.rule, bar):
            passed = size
        else:
            failed, fewer = size, point
        if not passed and failed == most:
            return Sized(engines=None, choices=(point,), fewer=None)
    choices: list[Point] = []
    for label in labels(passed):
        choices.append((yield replace(task_of(passed, label), bars=())))  # noqa: PERF401 - a generator cannot be had inside a list
    return Sized(engines=passed, choices=_ranked(choices), fewer=fewer)


def _best_of(
    labels: Sequence[str], task_of: TaskOf, size: int, bar: float
) -> Generator[Task, Point, Point]:
    """The first that passes, or the one of those that failed that held out longest."""
    failed: list[Point] = []
    for label in labels:
        point = yield task_of(size, label)
        if point.passes(point.task.rule, bar):
            return point
        failed.append(point)
    return max(failed, key=lambda one: (one.ended_s, one.bounds(one.task.rule).at_most))


def _ranked(points: Sequence[Point]) -> tuple[Point, ...]:
    """Those that keep most first; of those alike, the one that leaves most room."""
    return tuple(sorted(points, key=lambda one: (-one.bounds(one.task.rule).at_least, room(one))))


def room(point: Point) -> float:
    """How near p99 of the admitted comes to its targets: the smaller, the more room is left."""
    everyone = point.classes[0]
    return max(everyone.ttft_share, everyone.tpot_share)
