"""Requests of the demo, sent to the gateway as any client would."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from services.node.demo_client import Answer, ask, make_client
from services.node.demo_requests import DemoRequest, demo_requests, first_requests
from shared.clock import Clock

_PAUSE_S: Final = 0.2  # between two requests of one worker, so that an engine can start beside them


@dataclass(frozen=True, slots=True)
class Client:
    """Of one gateway and one model."""

    url: str
    model: str
    clock: Clock

    async def demo(self) -> list[Answer]:
        """Sends one short request each way, then the demo's twelve; gives the answers of these."""
        async with make_client(self.url) as http:
            for request in first_requests():
                await ask(http, request, self.model)
            requests = demo_requests()
            pairs = zip(requests[::2], requests[1::2], strict=True)
            return [
                answer
                for pair in pairs
                for answer in await asyncio.gather(*(ask(http, one, self.model) for one in pair))
            ]

    async def one(self, request: DemoRequest) -> Answer:
        async with make_client(self.url) as http:
            return await ask(http, request, self.model)

    @asynccontextmanager
    async def under_load(self, in_flight: int) -> "AsyncIterator[Load]":
        """Requests all the time, `in_flight` at once; the last ones end before this does."""
        load = Load(client=self)
        workers = [asyncio.create_task(load.work(number)) for number in range(in_flight)]
        try:
            yield load
        finally:
            load.stopping = True
            await asyncio.gather(*workers)


@dataclass(slots=True)
class Load:
    """What came back so far."""

    client: Client
    answers: list[Answer] = field(default_factory=list)
    stopping: bool = False

    async def work(self, number: int) -> None:
        requests = itertools.cycle(demo_requests()[number:] + demo_requests()[:number])
        async with make_client(self.client.url) as http:
            while not self.stopping:
                self.answers.append(await ask(http, next(requests), self.client.model))
                await self.client.clock.sleep(_PAUSE_S)

    @property
    def failures(self) -> list[str]:
        return [one.failure for one in self.answers if one.failure]
