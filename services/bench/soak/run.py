"""Runs a soak test on a started node: measures it idle, then sends all requests on time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from services.bench.capacity.asking import Asked, Measure, text_ids
from services.bench.capacity.classes import MIXED, Multiples, Targets, mix
from services.bench.capacity.client import Ask, Note, Reply, StreamClient
from services.bench.capacity.judge import Judged
from services.bench.capacity.open_loop import OpenLoop
from services.bench.capacity.pace import first_rate
from services.bench.capacity.trace import TraceScale, read_trace
from services.bench.capacity.workload import Load, Offered, Prompts
from services.bench.http_client import http_session
from services.bench.soak.bursts import bursty, busy_and_quiet
from services.bench.soak.options import SoakOptions
from services.bench.soak.records import name_of
from shared.clock import Clock

_ANSWER_LIMIT_S: Final = 120.0
_MOST_REQUESTS: Final = 50_000
_LEAST_TPOT_S: Final = 0.001  # tokens of a tiny model come several at once
_NAME: Final = "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakRun:
    """One soak test. `say` takes lines of progress."""

    options: SoakOptions
    clock: Clock
    say: Callable[[str], None]

    async def send_all(self, url: str, model: str) -> list[Judged]:
        """Runs the test; all requests in order. Raises AnswerFailed if the idle node fails."""
        async with http_session(_ANSWER_LIMIT_S) as session:
            client = StreamClient(session=session, url=url, model=model)
            asked = Asked(name=_NAME, client=client, knows_slos=True)
            measure = Measure(
                clock=self.clock,
                text_ids=await text_ids(client),
                seed=self.options.seed,
                drain_s=self.options.drain_s,
            )
            await measure.warm_up(asked)
            targets = await self._targets(measure, asked)
            return await self._send_offered(client, measure.text_ids, targets)

    async def _targets(self, measure: Measure, asked: Asked) -> Targets:
        measured = await measure.zero_load(asked)
        zero_load = replace(measured, tpot_s=max(measured.tpot_s, _LEAST_TPOT_S))
        self.say(f"idle: {zero_load.as_json()}")
        options = self.options
        return Targets(
            zero_load=zero_load,
            multiples=Multiples(
                tight_ttft=options.tight_ttft,
                loose_ttft=options.loose_ttft,
                tight_tpot=options.tight_tpot,
                loose_tpot=options.loose_tpot,
            ),
        )

    async def _send_offered(
        self, client: StreamClient, ids: Sequence[int], targets: Targets
    ) -> list[Judged]:
        offered = self._offered(targets)
        prompts = Prompts(ids, f"{self.options.seed} soak")
        asks = {
            id(one): Ask(
                prompt=prompts.next(one.prompt_tokens),
                output_tokens=one.output_tokens,
                slo=self._slo(one, targets),
                name=name_of(number),
            )
            for number, one in enumerate(offered)
        }

        async def send(one: Offered, note: Note) -> Reply:
            return await client.ask(asks[id(one)], note)

        loop = OpenLoop(send=send, clock=self.clock)
        seen = await loop.run(offered, 60 * self.options.minutes, self.options.drain_s)
        return [
            Judged(
                seen=one,
                ttft_target_s=targets.ttft_s(one.offered.class_name, one.offered.prompt_tokens),
                tpot_target_s=targets.tpot_s(one.offered.class_name),
            )
            for one in seen
        ]

    def _offered(self, targets: Targets) -> list[Offered]:
        options, seconds = self.options, 60 * self.options.minutes
        load = load_of(options)
        rate_rps = options.rate or first_rate(load, targets.zero_load)
        offered = load.offered(rate_rps, seconds)
        if not options.trace:
            offered = busy_and_quiet(offered, seconds)
        self.say(f"{load.name}: {len(offered)} requests in {seconds:g} s, {rate_rps:.2f}/s")
        return offered

    def _slo(self, offered: Offered, targets: Targets) -> dict[str, Any]:
        ttft_s = targets.ttft_s(offered.class_name, offered.prompt_tokens)
        tpot_s = targets.tpot_s(offered.class_name)
        return {
            "class": offered.class_name,
            "ttft_ms": round(1000 * ttft_s, 1),
            "tpot_ms": round(1000 * tpot_s, 1),
            "on_refuse": self.options.on_refuse.value,
        }


def load_of(options: SoakOptions) -> Load:
    """The load. Raises ConfigError if the trace cannot be read."""
    if not options.trace:
        return bursty(mix(MIXED), options.seed, _MOST_REQUESTS, options.burstiness)
    scale = TraceScale(
        start_s=options.trace_start_s, prompt=options.prompt_scale, output=options.output_scale
    )
    return read_trace(Path(options.trace).expanduser(), mix(MIXED), scale, options.seed)
