"""Whether this gateway takes requests, and how many it serves now. Starts and stops nothing."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Lifecycle:
    """`draining` is set once, when the process is told to stop."""

    def __init__(self) -> None:
        self.draining = False
        self.inflight_requests = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts one request for as long as it is served."""
        self.inflight_requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.inflight_requests -= 1
            if self.inflight_requests == 0:
                self._idle.set()

    async def drain(self, limit_s: float) -> bool:
        """Waits until nothing is in flight, at most `limit_s`; says whether that came true."""
        self.draining = True
        try:
            async with asyncio.timeout(limit_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
