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

from services.bench.chaos.answer import Answer
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
    answers: list[Answer] = field(default_factory=list)

    async def each(self, requests: Sequence[Request], at_once: int) -> list[Answer]:
        """Sends every request once, `at_once` at a time."""
        places = asyncio.Semaphore(at_once)

        async def one(request: Request) -> Answer:
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
                answer = await self.ask(chance.choice(requests), gateway=gateway, salt=salt)
                self.answers.append(answer)
                if answer.refusal or answer.fault:
                    await self.clock.sleep(_BACK_OFF_S)

        await asyncio.gather(*(client(number) for number in range(clients)))

    async def ask(self, request: Request, *, gateway: int, salt: str = "") -> Answer:
        """Sends one request. A failing server raises nothing."""
        began_at_s = self.clock.now()
        answer = Answer(
            number=request.number,
            kind=request.kind,
            gateway=gateway,
            began_at_s=began_at_s,
            heard_at_s=began_at_s,
        )
        url = f"{self.gateways[gateway]}{request.path}"
        try:
            async with self.session.post(url, json=request.once(salt)) as response:
                await self._read(response, request, answer)
        except (aiohttp.ClientError, TimeoutError) as error:
            answer.fault, answer.disconnected = repr(error), True
        answer.ended_at_s = self.clock.now()
        return answer

    async def _read(
        self, response: aiohttp.ClientResponse, request: Request, answer: Answer
    ) -> None:
        if response.status != HTTPStatus.OK:
            answer.refuse(response.status, _object(await response.read()))
        elif not request.body["stream"]:
            answer.take(_object(await response.read()))
            answer.note(self.clock.now())
        else:
            async for line in response.content:
                if line.startswith(_DATA) and not line.startswith(_DONE, len(_DATA)):
                    answer.note(self.clock.now())
                    answer.take(_object(line[len(_DATA) :]))


def _object(body: bytes) -> dict[str, Any]:
    """The parsed body; empty if it is no JSON object."""
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return read if isinstance(read, dict) else {}
