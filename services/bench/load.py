"""A closed loop: a number of clients, each sending its next request after its last answer."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.bench.answers import Answer
from services.bench.spread import Spread

_WARM_UP_SHARE = 0.2  # of the time, not counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The result of one load. `cpu_s` is the server's CPU time in the counted time, if known."""

    in_flight: int
    seconds: float
    answers: int
    latency: Spread
    ttft: Spread
    cpu_s: float | None

    @property
    def requests_per_s(self) -> float:
        return self.answers / self.seconds

    @property
    def cpu_ms_per_request(self) -> float | None:
        return None if self.cpu_s is None else 1000 * self.cpu_s / self.answers


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """`ask` sends one request; `cpu_seconds` reads the server's CPU time so far, if known."""

    ask: Callable[[], Awaitable[Answer]]
    cpu_seconds: Callable[[], Awaitable[float | None]]
    now: Callable[[], float]

    async def run(self, in_flight: int, seconds: float) -> Load:
        """Runs one load after a warm-up. Raises what `ask` raises."""
        await self._for(in_flight, _WARM_UP_SHARE * seconds)
        before_s, started_at_s = await self.cpu_seconds(), self.now()
        answers = await self._for(in_flight, seconds)
        took_s, after_s = self.now() - started_at_s, await self.cpu_seconds()
        return Load(
            in_flight=in_flight,
            seconds=took_s,
            answers=len(answers),
            latency=Spread.of([answer.last_s for answer in answers]),
            ttft=Spread.of([answer.first_s for answer in answers]),
            cpu_s=None if before_s is None or after_s is None else after_s - before_s,
        )

    async def _for(self, in_flight: int, seconds: float) -> list[Answer]:
        answers: list[Answer] = []
        until_s = self.now() + seconds

        async def client() -> None:
            while self.now() < until_s:
                answers.append(await self.ask())

        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(client())
        return answers
