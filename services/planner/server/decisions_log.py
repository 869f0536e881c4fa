"""Appends ended decisions to a file, one JSON object per line, without delaying decisions."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

from shared.errors import ConfigError
from shared.requests import Explanation
from shared.telemetry.log_files import append_to

_LOG = logging.getLogger(__name__)
_MOST_WAITING: Final = 50_000
_AT_ONCE: Final = 2_000  # lines of one write; bounds the memory


@dataclass(slots=True)
class DecisionsLog:
    """A bounded queue of decisions and the file that they go to. `put` queues them, `write` writes
    them in a thread of its own.

    A file that has reached `limit_bytes` is renamed to end in `.1` and replaces the one before, so
    that both take at most about twice as much. Where the disk is too slow, the oldest decisions are
    dropped and counted.
    """

    path: Path
    limit_bytes: int
    dropped: int = 0
    _waiting: deque[Explanation] = field(default_factory=deque)

    @classmethod
    def open(cls, path: Path, limit_bytes: int) -> "DecisionsLog":
        """Makes the folder. Raises ConfigError when the file cannot be written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with append_to(path):
                pass
        except OSError as error:
            raise ConfigError(
                f"--decisions-log {path} cannot be written ({error.strerror}); name another file."
            ) from error
        return cls(path, limit_bytes)

    def put(self, ended: Iterable[Explanation]) -> None:
        self._waiting.extend(ended)
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft()
            self.dropped += 1

    async def write(self) -> None:
        """Writes all queued decisions. Where that fails, drops them and logs a warning."""
        while self._waiting:
            count = min(_AT_ONCE, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            try:
                await asyncio.to_thread(self._append, batch)
            except OSError as error:
                self.dropped += count
                _LOG.warning("%d decisions could not be written: %s", count, error)

    def _append(self, batch: list[Explanation]) -> None:
        if self.path.exists() and self.path.stat().st_size >= self.limit_bytes:
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        lines = b"".join(orjson.dumps(one) + b"\n" for one in batch)
        with append_to(self.path) as file:
            file.write(lines)
