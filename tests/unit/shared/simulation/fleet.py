"""Small fleets, loads and systems for the laws of the simulation."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shared.batch_time import ADDITIVE, StepCurve, StepTable
from shared.batch_time.table import CHUNKS, PREFILL, FloatArray
from shared.engines import Role
from shared.hardware import Draft, Hardware, TrueStep
from shared.scheduling.expired import settle_expired
from shared.scheduling.kernel import form
from shared.scheduling.rows import AVAILABLE, COMPUTED, DRAFT, TOTAL
from shared.scheduling.shares import Tokens
from shared.simulation.engine import SimEngine
from shared.simulation.record import Conditions
from shared.simulation.system import Ended, Fetched, Refusal, Route, SimRequest
from shared.workloads.calls import Call, Load, Program, StageLoad

AT_ONCE = Conditions(network_s=0.0, decision_s=0.0)
TABLE = StepTable.of(StepCurve(form=ADDITIVE, coefficients=(1e-2, 5e-5, 5e-4, 1e-7)))
NOISE = 0.1


def hardware(*, step_s: float = 0.01, noise: float = 0.0, **changes: Any) -> Hardware:
    """Steps that all last as long, but for the noise."""
    step = TrueStep(
        weights_s=step_s,
        weights_token_s=0.0,
        arithmetic_s=0.0,
        arithmetic_token_s=0.0,
        context_s=0.0,
        pair_s=0.0,
        noise_sigma=noise,
    )
    plain = Hardware(
        name="plain",
        model="none",
        gpu="none",
        gpus=1,
        source="made up",
        step=step,
        stall_chance=0.0,
        stall_s=0.0,
        kv_blocks=10_000,
        block_size_tokens=16,
        kv_bytes_per_token=1000.0,
        max_step_tokens=512,
        max_running_requests=64,
        max_model_len_tokens=4096,
        link_bytes_per_s=1e7,
        link_latency_s=0.001,
        host_overhead_s=0.0,
    )
    return replace(plain, **changes)


def drafting(hardware: Hardware) -> Hardware:
    return replace(hardware, draft=Draft(model="small", max_speculation_tokens=3, step_s=0.0))


def fleet(hardware: Hardware, decode: int = 1, prefill: int = 0, seed: int = 1) -> list[SimEngine]:
    """`d0`, `d1` and so on, then `p0` and so on."""
    names = [f"d{i}" for i in range(decode)] + [f"p{i}" for i in range(prefill)]
    return [
        SimEngine(
            name,
            Role.DECODE if name.startswith("d") else Role.PREFILL,
            hardware,
            TABLE,
            seed=seed,
        )
        for name in names
    ]


def call(prompt: int = 20, output: int = 5, **changes: Any) -> Call:
    return Call(
        class_name="chat",
        prompt_tokens=prompt,
        stages=(StageLoad(name="answer", output_tokens=output, tpot_s=0.1),),
        max_output_tokens=changes.pop("max_output_tokens", output),
        **{"ttft_s": 1.0, **changes},
    )


def program(name: str, arrives_s: float, *calls: Call) -> Program:
    return Program(program_id=name, application="test", arrives_s=arrives_s, calls=calls)


def random_load(seed: int, programs: int, *, sharing: float = 0.0) -> Load:
    """Of up to three calls, each with what went before in its prompt; two stages at times. A part
    of `sharing` begins with one of two texts that others begin with as well.
    """
    chance = random.Random(seed)
    now, load = 0.0, []
    for number in range(programs):
        now += chance.expovariate(20.0)
        calls: list[Call] = []
        before = 0
        for _ in range(chance.choice((1, 1, 3))):
            one = _random_call(chance, before)
            before = one.prompt_tokens + one.output_tokens
            calls.append(one)
        if sharing and chance.random() < sharing:
            calls = [_shared(chance, calls[0])]
        load.append(program(f"p{number}", now, *calls))
    return tuple(load)


def _shared(chance: random.Random, one: Call) -> Call:
    group, tokens = chance.choice((("short", 40), ("long", 150)))
    return replace(
        one,
        prompt_tokens=tokens + one.prompt_tokens,
        prefix_tokens=tokens,
        prefix_group=group,
    )


def _random_call(chance: random.Random, before: int) -> Call:
    first, second = chance.randint(1, 25), chance.choice((0, chance.randint(1, 10)))
    stages = [StageLoad(name="think", output_tokens=first, tpot_s=chance.choice((0.02, 0.2)))]
    if second:
        stages.append(StageLoad(name="answer", output_tokens=second, tpot_s=0.1))
    return Call(
        class_name="chat",
        prompt_tokens=before + chance.randint(1, 200),
        prefix_tokens=chance.randint(0, before),
        stages=tuple(stages),
        max_output_tokens=first + second + chance.choice((0, 20)),
        ttft_s=chance.choice((0.1, 1.0, None)),
        after_s=chance.choice((0.0, 0.05)),
    )


@dataclass
class InTurns:
    """Engines in turns, through a prefill engine where there is one; the production step former."""

    recheck_s: float = 0.1
    drafts: int = 0
    ends: list[Ended] = field(default_factory=list)
    placed: int = 0
    names: list[str] = field(default_factory=list)

    def observe(self, engines: Mapping[str, SimEngine], now: float) -> None:  # noqa: ARG002 - a System
        self.names = list(engines)

    def place(self, waiting: Sequence[SimRequest], now: float) -> list[Route | Refusal | None]:
        return [self._route(self.names) for request in waiting if request.arrives_s <= now]

    def _route(self, names: list[str]) -> Route | None:
        decode = [name for name in names if name.startswith("d")]
        prefill = [None, *(name for name in names if name.startswith("p"))]
        self.placed += 1
        if not decode:
            return None
        turn = self.placed
        return Route(decode=decode[turn % len(decode)], prefill=prefill[turn % len(prefill)])

    def form(self, engine: SimEngine, tokens: Tokens, counts: FloatArray, now: float) -> float:
        rows = engine.rows
        rows[:, DRAFT] = (rows[:, TOTAL] - rows[:, COMPUTED] < 2) * float(self.drafts)
        settle_expired(rows, TABLE.numbers, now)
        return float(form(rows, tokens, counts, TABLE.numbers, engine.limits, now))

    def ended(self, ended: Ended) -> None:
        self.ends.append(ended)

    def moved(self, engine: SimEngine, request: SimRequest) -> None: ...

    def fetched(self, engine: SimEngine, fetched: Fetched) -> None: ...

    def exported(
        self, request: SimRequest, seconds: float, now: float, *, in_time: bool
    ) -> None: ...

    def lost(self, engine: SimEngine, now: float) -> None: ...

    def joined(self, engine: SimEngine, now: float) -> None: ...


class OneAtATime(InTurns):
    """First come first served: all of the first one's prompt in a step."""

    def form(self, engine: SimEngine, tokens: Tokens, counts: FloatArray, now: float) -> float:
        assert len(engine.rows) == 1 or now >= engine.rows[0, AVAILABLE]
        tokens[0] = engine.rows[0, TOTAL] - engine.rows[0, COMPUTED]
        counts[CHUNKS], counts[PREFILL] = 1.0, tokens[0]
        return 1.0
