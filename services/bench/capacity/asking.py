"""Measures one system: its warm-up, its zero-load times and its points."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from services.bench.answers import AnswerFailed
from services.bench.capacity.classes import Targets, ZeroLoad
from services.bench.capacity.client import Ask, Client, Note, Reply
from services.bench.capacity.judge import Ended, Judged
from services.bench.capacity.open_loop import OpenLoop
from services.bench.capacity.points import Point
from services.bench.capacity.workload import Load, Offered, Prompts
from services.bench.machine import busy_s
from shared.clock import Clock

_ZERO_LOAD_PROMPTS: Final = (16, 64, 128, 256, 512)
_ZERO_LOAD_TIMES: Final = 3
_ZERO_LOAD_TOKENS: Final = 16  # in answers on which TPOT is measured
_WARM_UP_PROMPT, _WARM_UP_TOKENS = 64, 4
_QUIET_S: Final = 1.0  # before a point: our work has ended, and busy cores are other processes'


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One system that runs."""

    name: str
    client: Client
    knows_slos: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """Takes measurements. Prompts are made of `text_ids`, tokens of real text."""

    clock: Clock
    text_ids: Sequence[int]
    seed: int
    drain_s: float

    async def warm_up(self, asked: Asked) -> None:
        """Sends one request. Raises AnswerFailed."""
        await self._times(asked, Prompts(self.text_ids, self.seed - 1), _WARM_UP_PROMPT)

    async def zero_load(self, asked: Asked) -> ZeroLoad:
        """Zero-load times: the best of several, one request at a time. Raises AnswerFailed.

        The best one is least disturbed by other processes.
        """
        prompts = Prompts(self.text_ids, self.seed - 2)
        ttft_s = []
        for tokens in _ZERO_LOAD_PROMPTS:
            taken = [await self._times(asked, prompts, tokens, 1) for _ in range(_ZERO_LOAD_TIMES)]
            ttft_s.append((tokens, min(times_s[0] for times_s in taken)))
        answers = [
            await self._times(asked, prompts, _WARM_UP_PROMPT, _ZERO_LOAD_TOKENS)
            for _ in range(_ZERO_LOAD_TIMES)
        ]
        # A first token that is read late would make TPOT too short: the best one of all counts,
        # also of answers with one token.
        first_s, last_s = (min(times_s[at] for times_s in answers) for at in (0, -1))
        first_s = min(first_s, *(one_s for tokens, one_s in ttft_s if tokens >= _WARM_UP_PROMPT))
        return ZeroLoad(ttft_s=tuple(ttft_s), tpot_s=(last_s - first_s) / (_ZERO_LOAD_TOKENS - 1))

    async def point(
        self,
        asked: Asked,
        load: Load,
        rate_rps: float,
        seconds: float,
        targets: Targets,
        *,
        turn: int,
    ) -> Point:
        """Measures one rate. Every system gets the same requests and prompts.

        Prompts differ between rates and turns, so that no prefix is cached from an earlier point.
        """
        offered = load.offered(rate_rps, seconds)
        prompts = Prompts(self.text_ids, f"{self.seed} {load.name} {rate_rps} {turn}")
        made = iter([prompts.next(one.prompt_tokens) for one in offered])

        async def send(one: Offered, note: Note) -> Reply:
            slo = _slo(one, targets) if asked.knows_slos else None
            ask = Ask(prompt=next(made), output_tokens=one.output_tokens, slo=slo)
            return await asked.client.ask(ask, note)

        busy_before_s = busy_s()
        await self.clock.sleep(_QUIET_S)
        busy_cores = (busy_s() - busy_before_s) / _QUIET_S
        loop = OpenLoop(send=send, clock=self.clock)
        seen = await loop.run(offered, seconds, self.drain_s)
        return Point(
            load=load.name,
            system=asked.name,
            rate_rps=rate_rps,
            seconds=seconds,
            busy_cores=busy_cores,
            judged=[
                Judged(
                    seen=one,
                    ttft_target_s=targets.ttft_s(one.offered.class_name, one.offered.prompt_tokens),
                    tpot_target_s=targets.tpot_s(one.offered.class_name),
                )
                for one in seen
            ],
        )

    async def _times(
        self, asked: Asked, prompts: Prompts, prompt_tokens: int, tokens: int = _WARM_UP_TOKENS
    ) -> list[float]:
        """Seconds from the sending to each token."""
        started_at_s, times_s = self.clock.now(), list[float]()

        def note(came: int) -> None:
            times_s.extend([self.clock.now() - started_at_s] * came)

        ask = Ask(prompt=prompts.next(prompt_tokens), output_tokens=tokens)
        reply = await asked.client.ask(ask, note)
        if reply.ended is not Ended.DONE:
            raise AnswerFailed(f"{asked.name} did not answer: {reply.message or reply.ended}")
        return times_s


def _slo(offered: Offered, targets: Targets) -> dict[str, Any]:
    """The class, and the TTFT target for this prompt's length."""
    ttft_s = targets.ttft_s(offered.class_name, offered.prompt_tokens)
    return {"class": offered.class_name, "ttft_ms": round(1000 * ttft_s, 1)}


async def text_ids(client: Client) -> list[int]:
    """Token ids of the demo's texts."""
    return await client.tokenize((files("services.node") / "demo_texts.txt").read_text("utf-8"))
