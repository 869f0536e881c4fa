"""Asks one system for what a point or an idle measurement needs; makes prompts and targets."""

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
_ZERO_LOAD_TOKENS: Final = 16  # of the answers that TPOT is measured on
_WARM_UP_PROMPT, _WARM_UP_TOKENS = 64, 4
_QUIET_S: Final = 1.0  # before a point: what the last one left ends; who works now is not ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One system that is up."""

    name: str
    client: Client
    knows_slos: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How points are taken. `text_ids` are tokens of real text that prompts are made of."""

    clock: Clock
    text_ids: Sequence[int]
    seed: int
    drain_s: float

    async def warm_up(self, asked: Asked) -> None:
        """Raises AnswerFailed."""
        await self._times(asked, Prompts(self.text_ids, self.seed - 1), _WARM_UP_PROMPT)

    async def zero_load(self, asked: Asked) -> ZeroLoad:
        """One request at a time; the best time of several, which others' work disturbs least.

        Raises AnswerFailed.
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
        # Of one answer, a first token that we read late would make the pace shorter than it is.
        first_s, last_s = (min(times_s[at] for times_s in answers) for at in (0, -1))
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
        """The same requests and prompts for every system; prompts are of this rate and turn alone,
        so that none is kept from a point before.
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
    """The class, and the TTFT that is right for this prompt's length."""
    ttft_s = targets.ttft_s(offered.class_name, offered.prompt_tokens)
    return {"class": offered.class_name, "ttft_ms": round(1000 * ttft_s, 1)}


async def text_ids(client: Client) -> list[int]:
    """Tokens of the demo's texts."""
    return await client.tokenize((files("services.node") / "demo_texts.txt").read_text("utf-8"))
