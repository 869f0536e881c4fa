"""Measures throughput without targets at saturation, on two systems in turns, A B A B.

Only tokens count that come while the full number of requests is in flight.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from services.bench.answers import AnswerFailed
from services.bench.capacity.asking import Asked
from services.bench.capacity.client import Ask
from services.bench.capacity.judge import Ended
from services.bench.capacity.result import Throughput
from services.bench.capacity.workload import Prompts
from shared.clock import Clock

_PROMPT_TOKENS: Final = 64
_OUTPUT_TOKENS: Final = 32


async def in_turns(
    systems: Sequence[Asked],
    prompts: Prompts,
    clock: Clock,
    *,
    in_flight: int,
    seconds: float,
    turns: int,
) -> list[Throughput]:
    """Measures each system `turns` times for `seconds`; the others idle. Raises AnswerFailed."""
    return [
        await _Saturated(asked=asked, prompts=prompts, in_flight=in_flight).measure(clock, seconds)
        for _ in range(turns)
        for asked in systems
    ]


@dataclass(slots=True, kw_only=True)
class _Saturated:
    asked: Asked
    prompts: Prompts
    in_flight: int
    tokens: int = 0
    _answered: int = 0
    _all_answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def measure(self, clock: Clock, seconds: float) -> Throughput:
        """Counts from when every client has had an answer; open requests are cancelled at the end.

        Raises AnswerFailed.
        """
        try:
            async with asyncio.TaskGroup() as group:
                clients = [group.create_task(self._client(i)) for i in range(self.in_flight)]
                await self._all_answered.wait()
                began_s, before = clock.now(), self.tokens
                await clock.sleep(seconds)
                tokens_per_s = (self.tokens - before) / (clock.now() - began_s)
                for client in clients:
                    client.cancel()
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the first to fail; the others were ended
        return Throughput(
            system=self.asked.name,
            requests_per_s=tokens_per_s / _OUTPUT_TOKENS,
            tokens_per_s=tokens_per_s,
        )

    async def _client(self, number: int) -> None:
        # First answers differ in length, so that prompts do not come in step.
        await self._ask(1 + number * _OUTPUT_TOKENS // self.in_flight)
        self._answered += 1
        if self._answered == self.in_flight:
            self._all_answered.set()
        while True:
            await self._ask(_OUTPUT_TOKENS)

    async def _ask(self, output_tokens: int) -> None:
        wanted = Ask(prompt=self.prompts.next(_PROMPT_TOKENS), output_tokens=output_tokens)
        reply = await self.asked.client.ask(wanted, self._note)
        if reply.ended is not Ended.DONE:
            raise AnswerFailed(f"{self.asked.name} did not answer: {reply.message or reply.ended}")

    def _note(self, tokens: int) -> None:
        self.tokens += tokens
