"""A load of mixed requests for tests: what clients asked, which hung up, and what came back."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.limits import ANSWER_LIMIT_S

WAYS = ("colocated", "disaggregated")


@dataclass(slots=True)
class Told:
    """What one client saw: a status, text, or the error that ended it."""

    number: int
    way: str
    status: int | None = None
    text: str = ""
    finish: str | None = None
    error: dict[str, Any] | None = None
    broken: str = ""
    hung_up: bool = False

    @property
    def complete(self) -> bool:
        return self.status == httpx.codes.OK and self.finish is not None and self.error is None


@dataclass(slots=True)
class Load:
    """Streams completions, `in_flight` at a time; client n leaves after its first tokens where
    `hang_up(n)`. How many events an answer has depends on how busy the machine is.
    """

    url: str
    model: str
    in_flight: int = 8
    max_tokens: int = 24
    hang_up: Callable[[int], bool] = lambda _: False
    told: list[Told] = field(default_factory=list)

    async def run(self, numbers: Iterable[int]) -> list[Told]:
        places = asyncio.Semaphore(self.in_flight)
        limits = httpx.Limits(max_connections=self.in_flight)
        async with httpx.AsyncClient(
            base_url=self.url, timeout=ANSWER_LIMIT_S, limits=limits
        ) as client:

            async def one(number: int) -> None:
                async with places:
                    self.told.append(await self._ask(client, number))

            await asyncio.gather(*(one(number) for number in numbers))
        return self.told

    async def _ask(self, client: httpx.AsyncClient, number: int) -> Told:
        told = Told(number, WAYS[number % 2])
        try:
            async with client.stream("POST", "/v1/completions", json=self.body(number)) as answer:
                told.status = answer.status_code
                if answer.status_code != httpx.codes.OK:
                    told.error = json.loads(await answer.aread())["error"]
                    return told
                await self._read(answer, told)
        except httpx.HTTPError as error:
            told.broken = f"{type(error).__name__}: {error}"
        return told

    async def _read(self, answer: httpx.Response, told: Told) -> None:
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                told.error = event["error"]
                return
            choice = event["choices"][0]
            told.text += choice["text"]
            told.finish = choice["finish_reason"]
            if told.finish is None and self.hang_up(told.number):
                told.hung_up = True
                return

    def body(self, number: int) -> dict[str, Any]:
        prompt = [(number * 7 + i * 3) % 250 + 3 for i in range(5 + number * 37 % 300)]
        return {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "slo": {"way": WAYS[number % 2]},
        }


def seen(told: list[Told]) -> Counter[str]:
    """Counts what clients saw, for the output (`pytest -s`)."""
    return Counter(
        "answered"
        if one.complete
        else f"{one.status} {one.error['code']}: {one.error['message']}"
        if one.error
        else one.broken
        for one in told
    )


def understandable(told: Told, killed: tuple[str, ...]) -> bool:
    """A whole answer, an error in OpenAI's shape, or a connection that died with the gateway."""
    if told.complete:
        return True
    if told.error is not None:
        return bool(told.error["message"]) and bool(told.error["type"])
    return "gateway" in killed and bool(told.broken)
