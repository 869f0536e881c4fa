"""Detects whether a start makes progress, by log lines and bytes read from disks."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from shared.errors import DeadlinePassed


def sign_of(log: Path, pid: int | None) -> int:
    """A number that changes while the part makes progress.

    Weights can take many minutes to load without a line in the log, but not without reading.
    """
    size = 0
    with suppress(OSError):
        size = log.stat().st_size
    return size + (_read_bytes(pid) if pid is not None else 0)


def _read_bytes(pid: int) -> int:
    """Bytes that the process and its descendants read from disks."""
    total = 0
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error, NotImplementedError):
                total += process.io_counters().read_bytes
    return total


@dataclass(slots=True)
class Patience:
    """A time limit that restarts with every sign of progress."""

    limit_s: float
    _seen: Mapping[str, int] = field(default_factory=dict)
    _changed_at_s: float | None = None

    def observe(self, signs: Mapping[str, int], now: float) -> None:
        """Takes the signs of awaited parts. Raises DeadlinePassed if none changes in time."""
        if self._changed_at_s is None or signs != self._seen:
            self._seen, self._changed_at_s = dict(signs), now
        if now - self._changed_at_s > self.limit_s:
            late = ", ".join(signs) or "some engine's attachment to the planner"
            raise DeadlinePassed(
                f"Not ready, and no progress for {self.limit_s:g} s: {late}. "
                "See the logs, or give more time with --start-limit-s."
            )
