"""Runs many searches at once: looks known points up and measures the rest."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from services.evaluation.points import Point, Task

T = TypeVar("T")
Asking = Generator[Task, Point, T]  # yields tasks, receives points, returns a result


class WorkerPool(Protocol):
    """Measures points in parallel."""

    jobs: int

    def start(self, task: Task) -> None: ...

    def next(self) -> Point: ...


class Points(Protocol):
    """Holds the points measured so far."""

    def find(self, task: Task) -> Point | None: ...

    def add(self, point: Point) -> None: ...


@dataclass(slots=True)
class _Round:
    """Searches that wait for a point, in the order given, and the tasks that run."""

    open: dict[str, tuple[Asking[Any], Task]] = field(default_factory=dict)
    running: list[Task] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)


def drive(
    searches: Mapping[str, Asking[T]],
    pool: WorkerPool,
    points: Points,
    heard: Callable[[int, int, Task], None] = lambda _ended, _all, _task: None,
) -> dict[str, T]:
    """Returns the result of each search; tasks of earlier searches start first. After each measured
    point `heard` gets the number of finished searches, the number of all, and the task.
    """
    state = _Round()
    for name, search in searches.items():
        _advance(state, name, search, None, points)
    while state.open:
        for _, task in state.open.values():
            if len(state.running) < pool.jobs and task not in state.running:
                state.running.append(task)
                pool.start(task)
        point = pool.next()
        points.add(point)
        state.running.remove(point.task)
        _hand_on(state, points)
        heard(len(state.found), len(searches), point.task)
    return {name: state.found[name] for name in searches}


def _hand_on(state: _Round, points: Points) -> None:
    """Advances every search that waits for a point which is known now."""
    for name, (search, task) in list(state.open.items()):
        known = points.find(task)
        if known is not None:
            _advance(state, name, search, known, points)


def _advance(
    state: _Round, name: str, search: Asking[Any], point: Point | None, points: Points
) -> None:
    """Runs a search to its first unknown point, or to its end."""
    try:
        while True:
            task = next(search) if point is None else search.send(point)
            point = points.find(task)
            if point is None:
                state.open[name] = (search, task)
                return
    except StopIteration as stop:
        state.open.pop(name, None)
        state.found[name] = stop.value
