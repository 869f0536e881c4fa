"""Starts and ends systems by name, and ends all of them at the end."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from services.bench.capacity.client import StreamClient
from services.bench.capacity.systems import System
from services.bench.http_client import http_session
from services.bench.parts import SERVED_NAME
from services.bench.processes import running
from shared.clock import Clock

Say = Callable[[str], None]


@dataclass(slots=True)
class Stage:
    """The systems that run now. Made by `stage`."""

    session: aiohttp.ClientSession
    clock: Clock
    start_limit_s: float
    say: Say
    _up: dict[str, AsyncExitStack] = field(default_factory=dict)

    async def start(self, system: System) -> StreamClient:
        """Starts a system and waits until it is ready. Raises DeadlinePassed and PartDied."""
        started_at_s = self.clock.now()
        stack = AsyncExitStack()
        context = running(list(system.parts), self.clock, self.start_limit_s)
        await stack.enter_async_context(context)
        self._up[system.name] = stack
        self.say(f"{system.name} ready after {self.clock.now() - started_at_s:.0f} s")
        return StreamClient(session=self.session, url=system.url, model=SERVED_NAME)

    async def end(self, name: str) -> None:
        """Ends one system and all its processes."""
        await self._up.pop(name).aclose()

    async def end_all(self) -> None:
        for name in list(self._up):
            await self.end(name)


@asynccontextmanager
async def stage(
    clock: Clock, *, start_limit_s: float, answer_limit_s: float, say: Say
) -> AsyncIterator[Stage]:
    """A stage without systems; all that were started have ended on exit."""
    async with http_session(answer_limit_s) as session:
        made = Stage(session=session, clock=clock, start_limit_s=start_limit_s, say=say)
        try:
            yield made
        finally:
            await made.end_all()
