"""Clients that send one request after another, and record what they receive."""

import asyncio
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import orjson

from services.bench.chaos.heard import Heard
from services.bench.chaos.requests import Request
from shared.clock import Clock

_DATA, _DONE = b"data: ", b"[DONE]"
_BACK_OFF_S: Final = 0.2  # after a refusal or a failure, as any client should


@dataclass(slots=True, kw_only=True)
class Clients:
    """Sends requests to the gateways in turn."""

    session: aiohttp.ClientSession
    gateways: Sequence[str]
    clock: Clock
    heard: list[Heard] = field(default_factory=list)

    async def each(self, requests: Sequence[Request], at_once: int) -> list[Heard]:
        """Sends every request once, `at_once` at a time."""
        places = asyncio.Semaphore(at_once)

        async def one(request: Request) -> Heard:
            async with places:
                return await self.ask(request, gateway=request.number % len(self.gateways))

        return list(await asyncio.gather(*(one(request) for request in requests)))

    async def on_and_on(
        self, requests: Sequence[Request], clients: int, seed: int, done: asyncio.Event
    ) -> None:
        """Runs this many clients until `done` is set; open requests then run to their end."""

        async def client(number: int) -> None:
            chance = random.Random(f"{seed} {number}")  # noqa: S311 - chance, not a secret
            gateway = number
            while not done.is_set():
                gateway = (gateway + 1) % len(self.gateways)
                salt = uuid.uuid4().hex if chance.random() < 0.5 else ""
                heard = await self.ask(chance.choice(requests), gateway=gateway, salt=salt)
                self.heard.append(heard)
                if heard.refusal or heard.fault:
                    await self.clock.sleep(_BACK_OFF_S)

        await asyncio.gather(*(client(number) for number in range(clients)))

    async def ask(self, request: Request, *, gateway: int, salt: str = "") -> Heard:
        """Sends one request. A failing server raises nothing."""
        began_at_s = self.clock.now()
        heard = Heard(
            number=request.number,
            kind=request.kind,
            gateway=gateway,
            began_at_s=began_at_s,
            heard_at_s=began_at_s,
        )
        url = f"{self.gateways[gateway]}{request.path}"
        try:
            async with self.session.post(url, json=request.once(salt)) as response:
                await self._read(response, request, heard)
        except (aiohttp.ClientError, TimeoutError) as error:
            heard.fault, heard.disconnected = repr(error), True
        heard.ended_at_s = self.clock.now()
        return heard

    async def _read(self, response: aiohttp.ClientResponse, request: Request, heard: Heard) -> None:
        if response.status != HTTPStatus.OK:
            heard.refuse(response.status, _object(await response.read()))
        elif not request.body["stream"]:
            heard.take(_object(await response.read()))
            heard.note(self.clock.now())
        else:
            async for line in response.content:
                if line.startswith(_DATA) and not line.startswith(_DONE, len(_DATA)):
                    heard.note(self.clock.now())
                    heard.take(_object(line[len(_DATA) :]))


def _object(body: bytes) -> dict[str, Any]:
    """The parsed body; empty if it is no JSON object."""
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return read if isinstance(read, dict) else {}
