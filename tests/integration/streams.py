"""Streams of long answers, and what each client saw of them."""

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import httpx

from tests.integration.load import WAYS
from tests.limits import ANSWER_LIMIT_S

_KINDS = 4
_WORDS = "([a-f]{3} ){60,70}"


@dataclass(slots=True)
class Seen:
    """One stream as its client saw it. `pause_s` is the longest time without news."""

    number: int
    text: str = ""
    finish: str | None = None
    tokens: int = 0
    pause_s: float = 0.0
    error: str = ""
    moves: list[dict[str, Any]] = field(default_factory=list)

    @property
    def again(self) -> bool:
        """Whether another engine computes it again from its begin."""
        return self.number // 2 % _KINDS in (1, 2)

    @property
    def answer(self) -> tuple[str, str | None, int]:
        return self.text, self.finish, self.tokens


@dataclass(slots=True)
class Streams:
    """Numbered streams; number n is the same request whenever it is asked."""

    url: str
    model: str
    max_tokens: int = 300
    both_ways: bool = True  # by order of the client, which no engine alone can carry out
    seen: dict[int, Seen] = field(default_factory=dict)

    async def run(self, numbers: Iterable[int]) -> list[Seen]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=self.url, timeout=ANSWER_LIMIT_S, limits=limits
        ) as client:
            return await asyncio.gather(*(self._one(client, number) for number in numbers))

    async def run_until(self, done: asyncio.Event, *, clients: int, numbers: int) -> list[Seen]:
        """So many clients ask for one answer after the other until they are told to stop."""
        seen: list[Seen] = []
        numbered = cycle(range(numbers))
        async with httpx.AsyncClient(base_url=self.url, timeout=ANSWER_LIMIT_S) as client:

            async def ask_on() -> None:
                while not done.is_set():
                    seen.append(await self._one(client, next(numbered)))

            await asyncio.gather(*(ask_on() for _ in range(clients)))
        return seen

    async def until_all_began(self, count: int) -> None:
        async with asyncio.timeout(ANSWER_LIMIT_S):
            while sum(bool(one.text) for one in self.seen.values()) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def _one(self, client: httpx.AsyncClient, number: int) -> Seen:
        seen = self.seen[number] = Seen(number)
        heard_at_s = _now_s()
        try:
            async with client.stream("POST", "/v1/completions", json=self.body(number)) as answer:
                if answer.status_code != httpx.codes.OK:
                    seen.error = (await answer.aread()).decode()
                    return seen
                async for line in answer.aiter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        seen.pause_s = max(seen.pause_s, _now_s() - heard_at_s)
                        heard_at_s = _now_s()
                        _take_in(seen, json.loads(line[6:]))
        except httpx.HTTPError as error:
            seen.error = repr(error)
        return seen

    def body(self, number: int) -> dict[str, Any]:
        """Greedy, seeded, penalized ones and such with a grammar, in both ways; no two share a
        prompt.
        """
        prompt = [(number * 7 + i * 3) % 250 + 3 for i in range(20 + number * 37 % 300)]
        kinds: list[dict[str, Any]] = [
            {"temperature": 0},
            {"temperature": 0.8, "seed": number},
            {"temperature": 0, "presence_penalty": 0.3},
            {"temperature": 0, "structured_outputs": {"regex": _WORDS}, "ignore_eos": False},
        ]
        return {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": self.max_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            "slo": {"way": WAYS[number % 2], "report": True}
            if self.both_ways
            else {"report": True},
            **kinds[number // 2 % _KINDS],
        }


def _take_in(seen: Seen, event: dict[str, Any]) -> None:
    if "error" in event:
        seen.error = str(event["error"]["message"])
        return
    for choice in event["choices"]:
        seen.text += choice["text"]
        seen.finish = choice["finish_reason"] or seen.finish
    if usage := event.get("usage"):
        seen.tokens = usage["completion_tokens"]
    if slo := event.get("slo"):
        seen.moves = slo.get("moves", [])


def _now_s() -> float:
    return time.monotonic()  # noqa: TID251 - clients live in real time
