"""Tracks whether this gateway takes requests and how many it serves, and waits for its drain."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Lifecycle:
    """The requests in flight and the state of the shutdown.

    Attributes:
        stopping: The process was told to stop: it is no longer ready, and answers end connections.
        draining: New requests are refused. Follows `stopping` at once or a little later.
    """

    def __init__(self) -> None:
        self.stopping = False
        self.draining = False
        self.inflight_requests = 0
        self._came = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts one request for as long as it is served."""
        self.inflight_requests += 1
        self._idle.clear()
        self._came.set()
        try:
            yield
        finally:
            self.inflight_requests -= 1
            if self.inflight_requests == 0:
                self._idle.set()

    async def drain(self, limit_s: float, quiet_s: float = 0.0) -> bool:
        """Waits at most `limit_s` seconds until nothing is in flight; returns whether it is so.

        New requests are served until none has come for `quiet_s`: load balancers need time to
        see that this gateway is no longer ready.
        """
        self.stopping = True
        try:
            async with asyncio.timeout(limit_s):
                await self._until_quiet(quiet_s)
                self.draining = True
                await self._idle.wait()
        except TimeoutError:
            return False
        finally:
            self.draining = True
        return True

    async def _until_quiet(self, quiet_s: float) -> None:
        while quiet_s > 0:
            self._came.clear()
            try:
                async with asyncio.timeout(quiet_s):
                    await self._came.wait()
            except TimeoutError:
                return
