"""Points measured in processes of their own, so many at a time. Chooses none of them."""

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

from shared.errors import DeadlinePassed, SlosError
from shared.parent import end_with_parent

POINT_LIMIT_S: Final = 900.0  # a point that takes longer has lost its process
_GLANCES: Final = 90  # within the limit: while all of us are stopped, one of them passes at most


class PointFailed(SlosError):
    """A simulation ended with a fault of its own; the message has the task that shows it."""


Task = TypeVar("Task")
Point = TypeVar("Point")


class Workers(Generic[Task, Point]):
    """Hands tasks to a pool and points back, in the order in which they come."""

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
        """The next one that is ready. Raises DeadlinePassed, and whatever a point raised."""
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
def workers(jobs: int, measure: Callable[[Task], Point]) -> Iterator[Workers[Task, Point]]:
    """Processes that end with the block, or with us, whatever they are at."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, initializer=_begin, initargs=(os.getpid(),)) as pool:
        yield Workers(pool, jobs, measure)


def _named(measure: Callable[[Task], Point], task: Task) -> Point:
    """Whatever goes wrong tells what it was about."""
    try:
        return measure(task)
    except SlosError:
        raise
    except Exception as error:
        raise PointFailed(f"{type(error).__name__}: {error} in {task}") from error


def _begin(parent_pid: int) -> None:
    """Ctrl-C is the parent's, which ends its workers; one that is killed takes them along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent_pid)
