"""Throughput without targets at saturation: a closed loop on two systems in turns, A B A B."""

from collections.abc import Sequence
from typing import Final

from services.bench.answers import Answer, AnswerFailed, Stopwatch
from services.bench.capacity.asking import Asked
from services.bench.capacity.client import Ask
from services.bench.capacity.judge import Ended
from services.bench.capacity.result import Throughput
from services.bench.capacity.workload import Prompts
from services.bench.load import ClosedLoop
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
    """Each system `turns` times for `seconds`, the others idle meanwhile. Raises AnswerFailed."""
    return [
        await _one(asked, prompts, clock, in_flight, seconds)
        for _ in range(turns)
        for asked in systems
    ]


async def _one(
    asked: Asked, prompts: Prompts, clock: Clock, in_flight: int, seconds: float
) -> Throughput:
    async def ask() -> Answer:
        watch = Stopwatch(clock.now())

        def note(tokens: int) -> None:
            watch.note(tokens, clock.now())

        wanted = Ask(prompt=prompts.next(_PROMPT_TOKENS), output_tokens=_OUTPUT_TOKENS)
        reply = await asked.client.ask(wanted, note)
        if reply.ended is not Ended.DONE:
            raise AnswerFailed(f"{asked.name} did not answer: {reply.message or reply.ended}")
        return watch.answer(_OUTPUT_TOKENS)

    async def unknown() -> None:
        return None

    load = await ClosedLoop(ask=ask, cpu_seconds=unknown, now=clock.now).run(in_flight, seconds)
    return Throughput(
        system=asked.name,
        requests_per_s=load.requests_per_s,
        tokens_per_s=load.requests_per_s * _OUTPUT_TOKENS,
    )
