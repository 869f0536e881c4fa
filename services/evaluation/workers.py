"""Measures points in parallel processes."""

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

from shared.errors import DeadlinePassed, SlosError
from shared.parent import end_with_parent

POINT_LIMIT_S: Final = 900.0  # a point that takes longer counts as lost with its process
_GLANCES: Final = 90  # waits within the limit; while all processes are suspended, only one passes


class PointFailed(SlosError):
    """A simulation failed with an error of its own; the message has the task."""


Task = TypeVar("Task")
Point = TypeVar("Point")


class Workers(Generic[Task, Point]):
    """Gives tasks to a pool of processes and returns points in the order in which they finish."""

    def __init__(
        self, pool: "multiprocessing.pool.Pool", jobs: int, measure: Callable[[Task], Point]
    ) -> None:
        self.jobs = jobs
        self._pool, self._measure = pool, measure
        self._done: queue.SimpleQueue[Point | BaseException] = queue.SimpleQueue()

    def start(self, task: Task) -> None:
        self._pool.apply_async(
            _named,
            (self._measure, task),
            callback=self._done.put,
            error_callback=self._done.put,
        )

    def next(self) -> Point:
        """The next point that is ready. Raises DeadlinePassed, and whatever a point raised."""
        for _ in range(_GLANCES):
            try:
                point = self._done.get(timeout=POINT_LIMIT_S / _GLANCES)
            except queue.Empty:
                continue
            if isinstance(point, BaseException):
                raise point
            return point
        raise DeadlinePassed(
            f"no point came within {POINT_LIMIT_S:.0f} s: give --jobs fewer, or --quick; "
            "what was measured is kept, and the same command goes on from there"
        )


@contextmanager
def workers(
    jobs: int, measure: Callable[[Task], Point], *, begin: Callable[[], None] | None = None
) -> Iterator[Workers[Task, Point]]:
    """A pool of processes that end with the block, or with this process. Each calls `begin` before
    it imports what `measure` needs.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, initializer=_begin, initargs=(os.getpid(), begin)) as pool:
        yield Workers(pool, jobs, measure)


def _named(measure: Callable[[Task], Point], task: Task) -> Point:
    """Measures a task; an unexpected error names it."""
    try:
        return measure(task)
    except SlosError:
        raise
    except Exception as error:
        raise PointFailed(f"{type(error).__name__}: {error} in {task}") from error


def _begin(parent_pid: int, begin: Callable[[], None] | None) -> None:
    """Ignores Ctrl-C, which the parent handles, and ends the worker when the parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent_pid)
    if begin is not None:
        begin()
