"""Follows the tenants file: applies it when it has changed, unless it is invalid."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.gateway.tenants import Known, Tenants, read_tenants
from shared.clock import Clock
from shared.errors import ConfigError

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_S: Final = 2.0
_Seen = tuple[int, int, int] | None


@dataclass(slots=True)
class TenantsFile:
    """`read` once at the start, then `follow`."""

    path: Path
    known: Known
    tenants: Tenants
    _seen: _Seen = None

    def read(self) -> None:
        """Reads and applies the file. Raises ConfigError."""
        self._seen = _look(self.path)
        self.tenants.take(read_tenants(self.path, self.known))

    async def follow(self, clock: Clock) -> None:
        """Looks at the file at intervals until cancelled."""
        while True:
            await clock.sleep(_LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Reads and applies the file if it has changed since the last look."""
        seen = await asyncio.to_thread(_look, self.path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            read = await asyncio.to_thread(read_tenants, self.path, self.known)
        except ConfigError as error:
            _LOG.error("the tenants stay as they were: %s", error)
            return
        self.tenants.take(read)
        _LOG.info("%d tenants of %s hold from now on", len(read), self.path)


@asynccontextmanager
async def followed(file: TenantsFile | None, clock: Clock) -> AsyncIterator[None]:
    """Follows `file` in the background, if there is one."""
    task = None if file is None else asyncio.create_task(file.follow(clock))
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _look(path: Path) -> _Seen:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
