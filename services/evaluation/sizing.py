"""Finds the smallest fleet that keeps enough of a load's targets, and its best split. It is a
generator that yields tasks and receives points.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

from services.evaluation.points import Point, Task

TaskOf = Callable[[int, str], Task]  # from a number of engines and a setting
Labels = Callable[[int], Sequence[str]]  # labels of settings with so many engines


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """`engines` None: not even the most are enough. `choices`: every setting of the smallest fleet,
    the best first. `fewer`: the best failed setting with one engine less; None for a fleet of one
    engine.
    """

    engines: int | None
    choices: tuple[Point, ...]
    fewer: Point | None


Sizing = Generator[Task, Point, Sized]


def smallest(labels: Labels, task_of: TaskOf, *, bar: float, most: int) -> Sizing:
    """Doubles the fleet until a setting passes, then bisects: more engines never carry less. All
    settings of the smallest fleet are simulated to the end.
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
    """The first setting that passes, or the failed one that lasted longest."""
    failed: list[Point] = []
    for label in labels:
        point = yield task_of(size, label)
        if point.passes(point.task.rule, bar):
            return point
        failed.append(point)
    return max(failed, key=lambda one: (one.ended_s, one.bounds(one.task.rule).at_most))


def _ranked(points: Sequence[Point]) -> tuple[Point, ...]:
    """Points by the share kept; equal ones by the room that they leave."""
    return tuple(sorted(points, key=lambda one: (-one.bounds(one.task.rule).at_least, room(one))))


def room(point: Point) -> float:
    """How near p99 of admitted requests comes to its targets: the smaller, the more room."""
    everyone = point.classes[0]
    return max(everyone.ttft_share, everyone.tpot_share)
