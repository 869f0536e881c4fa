"""Asks several servers the same in turns, A B C A B C, and compares their times."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.bench.answers import Answer
from services.bench.prompts import Prompt
from services.bench.spread import Spread, percentile

Ask = Callable[[Prompt], Awaitable[Answer]]
_WARM_UP_TURNS = 3


def turns(requests: int, in_flight: int) -> int:
    """Turns of each server, warm-up included."""
    return _WARM_UP_TURNS + -(-requests // in_flight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Answers by server, in the order of their turns: the n-th of each had the same load."""

    in_flight: int
    answers: Mapping[str, Sequence[Answer]]

    def ttft(self, server: str) -> Spread:
        return Spread.of([answer.first_s for answer in self.answers[server]])

    def per_token(self, server: str) -> Spread:
        return Spread.of([answer.per_token_s for answer in self.answers[server]])

    def added(self, server: str, base: str) -> "Added":
        return Added.of(self.answers[server], self.answers[base])


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Time that one server takes beyond another, in milliseconds.

    `p50` and `p99` are differences between the percentiles of the two. `paired` is the median of
    the differences within each turn, which slow drift of the machine does not affect.
    """

    ttft_p50_ms: float
    ttft_p99_ms: float
    ttft_paired_ms: float
    per_token_p50_ms: float
    per_token_p99_ms: float
    per_token_paired_ms: float

    @classmethod
    def of(cls, answers: Sequence[Answer], base: Sequence[Answer]) -> "Added":
        ttft = _differences([a.first_s for a in answers], [b.first_s for b in base])
        token = _differences([a.per_token_s for a in answers], [b.per_token_s for b in base])
        return cls(
            ttft_p50_ms=ttft[0],
            ttft_p99_ms=ttft[1],
            ttft_paired_ms=ttft[2],
            per_token_p50_ms=token[0],
            per_token_p99_ms=token[1],
            per_token_paired_ms=token[2],
        )


def _differences(ours_s: Sequence[float], theirs_s: Sequence[float]) -> tuple[float, float, float]:
    ours, theirs = Spread.of(ours_s), Spread.of(theirs_s)
    paired_s = [one - other for one, other in zip(ours_s, theirs_s, strict=True)]
    return (
        ours.p50_ms - theirs.p50_ms,
        ours.p99_ms - theirs.p99_ms,
        1000 * percentile(paired_s, 50),
    )


async def compare(
    servers: Mapping[str, Ask], prompts: Iterator[Prompt], *, requests: int, in_flight: int
) -> Comparison:
    """Sends at least `requests` requests to each server, `in_flight` at a time.

    Every request has a different prompt, so that no server profits from its prefix cache.
    """
    answers: dict[str, list[Answer]] = {name: [] for name in servers}
    for turn in range(turns(requests, in_flight)):
        for name, ask in servers.items():
            got = await _at_once(ask, [next(prompts) for _ in range(in_flight)])
            if turn >= _WARM_UP_TURNS:
                answers[name] += got
    return Comparison(in_flight=in_flight, answers=answers)


async def _at_once(ask: Ask, prompts: Sequence[Prompt]) -> list[Answer]:
    async def one(prompt: Prompt) -> Answer:
        return await ask(prompt)

    tasks: list[asyncio.Task[Any]] = []
    async with asyncio.TaskGroup() as group:
        tasks += [group.create_task(one(prompt)) for prompt in prompts]
    return [task.result() for task in tasks]
