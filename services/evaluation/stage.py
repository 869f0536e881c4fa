"""Progress and messages of the evaluation's commands, on stderr."""

import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from services.evaluation.points import Task
from services.evaluation.scenarios import shown_name
from shared.clock import MonotonicClock

Told = Callable[[int, int, str], None]  # how many are done, of how many, and the last one
_EVERY_S: Final = 30.0  # between lines, where there is no terminal


@dataclass(slots=True)
class Progressing:
    """A bar for each part on a terminal, elsewhere a line now and then; always on stderr."""

    console: Console = field(default_factory=lambda: Console(stderr=True))
    bars: Progress | None = None
    _clock: MonotonicClock = field(default_factory=MonotonicClock)
    _said_s: float = 0.0

    def hear(self, part: str) -> Callable[[int, int, Task], None]:
        """The listener of a part, which is called after each point."""
        told = self.show(part)

        def heard(ended: int, whole: int, task: Task) -> None:
            name = shown_name(task.scenario)
            told(ended, whole, f"{name}, {task.system}, {task.engines} x, {task.rate:.3g}/s")

        return heard

    def show(self, part: str) -> Told:
        """The listener of a part without points."""
        bar = self.bars.add_task(part, total=None, what="") if self.bars else None

        def told(ended: int, whole: int, what: str) -> None:
            if self.bars is not None and bar is not None:
                self.bars.update(bar, completed=ended, total=whole, what=what)
            elif self._clock.now() - self._said_s >= _EVERY_S:
                self._said_s = self._clock.now()
                self.console.print(f"{part}: {ended} of {whole}; {what}", highlight=False)

        return told


@contextmanager
def progressing() -> Iterator[Progressing]:
    """Bars for as long as the block lasts."""
    if not Console(stderr=True).is_terminal:
        yield Progressing()
        return
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield Progressing(bars=bars)


def say(line: str) -> None:
    """Prints a line to stderr before anything runs."""
    print(line, file=sys.stderr, flush=True)


def jobs_of(asked: int) -> int:
    """The number of processes; 0: one for each core."""
    return asked or os.cpu_count() or 1


def machine_line() -> str:
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"{sys.platform}."
    )
