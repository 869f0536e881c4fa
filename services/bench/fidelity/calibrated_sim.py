"""Simulates a running system: the same requests, step times from its profile."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from services.bench.capacity.judge import Judged
from services.bench.fidelity.compare import Outcome, seen, simulated
from services.bench.fidelity.own_engine import OwnEngine
from services.evaluation.baselines.baseline import Baseline
from services.evaluation.baselines.routers import LeastLoaded
from services.evaluation.baselines.vllm import chunks
from services.evaluation.planned import Planned, Settings
from shared.batch_time import StepTable
from shared.engines import Role
from shared.hardware import Hardware
from shared.simulation.engine import SimEngine
from shared.simulation.record import Conditions
from shared.simulation.run import Run
from shared.simulation.system import System
from shared.workloads.calls import Call, Load, Program, StageLoad

_SLOWER = 0.6, 2.5  # bounds of a machine's change of speed
_HALVINGS = 8

Build = Callable[[Sequence[SimEngine]], System]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedSim:
    """A simulated system before it runs.

    Attributes:
        table: The step times that a planner starts from.
        slower: Factor of the step times over the profile.
        on_the_way_s: Time of a request and its answer outside of engines.
    """

    hardware: Hardware
    table: StepTable
    roles: tuple[Role, ...]
    build: Build
    slower: float = 1.0
    on_the_way_s: float = 0.0

    def outcomes(
        self, judged: Sequence[Judged], *, wait_s: float, seed: int, before: Sequence[Judged] = ()
    ) -> list[Outcome]:
        """Simulates the same requests; those open `wait_s` after the last arrival are cut.

        Requests in `before` run first, so that planner and engines have learned from them.
        """
        hardware = self.hardware.slower(self.slower)
        engines = [
            SimEngine(f"{role.value}-{number}", role, hardware, self.table, seed=seed)
            for number, role in enumerate(self.roles)
        ]
        conditions = Conditions(
            network_s=self.on_the_way_s / 2,
            decision_s=0.0,
            drain_s=wait_s,
        )
        earlier = load_of(before)
        from_s = earlier[-1].arrives_s + wait_s if earlier else 0.0
        load = (*earlier, *load_of(judged, from_s=from_s, first=len(earlier)))
        record = Run(load, self.build(engines), engines, conditions).record()
        return simulated(record)[len(earlier) :]

    def calibrated(
        self, seen_before: Sequence[Judged], *, wait_s: float, seed: int
    ) -> "CalibratedSim":
        """Fits `slower` and `on_the_way_s` to requests other than the compared ones.

        `slower`, the change of the machine's speed since the profile, comes from bisection on the
        TPOT after the second token. `on_the_way_s`, the overhead of servers and network, comes from
        TTFT. The simulation is unchanged if no answer had three tokens.
        """
        real = seen(seen_before)
        paces_s = [one.later_s for one in real]
        if all(map(math.isnan, paces_s)):
            return self
        low, high = _SLOWER
        for _ in range(_HALVINGS):
            sim = replace(self, slower=math.sqrt(low * high))
            outcomes = sim.outcomes(seen_before, wait_s=wait_s, seed=seed)
            if _median_off(paces_s, [one.later_s for one in outcomes]) > 0:
                low = sim.slower
            else:
                high = sim.slower
        sim = replace(self, slower=math.sqrt(low * high))
        timed = sim.outcomes(seen_before, wait_s=wait_s, seed=seed)
        way_s = _median_off([one.ttft_s for one in real], [one.ttft_s for one in timed])
        return replace(sim, on_the_way_s=max(0.0, way_s))


def _median_off(real_s: Sequence[float], sim_s: Sequence[float]) -> float:
    """The median difference of the requests with both times; 0 if there are none."""
    differences_s = [real - sim for real, sim in zip(real_s, sim_s, strict=True)]
    known_s = [one for one in differences_s if not math.isnan(one)]
    return statistics.median(known_s) if known_s else 0.0


def load_of(judged: Sequence[Judged], *, from_s: float = 0.0, first: int = 0) -> Load:
    """The requests with their targets, due from `from_s` on and numbered from `first`."""
    return tuple(
        Program(
            program_id=f"r{number}",
            application="fidelity",
            arrives_s=from_s + one.seen.offered.at_s,
            calls=(_call(one),),
        )
        for number, one in enumerate(judged, first)
    )


def _call(judged: Judged) -> Call:
    offered = judged.seen.offered
    answer = StageLoad(
        name="answer", output_tokens=offered.output_tokens, tpot_s=judged.tpot_target_s
    )
    return Call(
        class_name=offered.class_name,
        prompt_tokens=offered.prompt_tokens,
        stages=(answer,),
        max_output_tokens=offered.output_tokens,
        ttft_s=judged.ttft_target_s,
        acceptance=0.0,
    )


def stock(engine: OwnEngine, step_tokens: int) -> CalibratedSim:
    """Simulates vLLM with a token budget for each step."""
    bounded = replace(engine.hardware, max_step_tokens=step_tokens)
    return CalibratedSim(
        hardware=bounded,
        table=engine.table,
        roles=(Role.DECODE,),
        build=lambda _: Baseline(LeastLoaded(), chunks()),
    )


def ours(engine: OwnEngine, roles: tuple[Role, ...]) -> CalibratedSim:
    """Simulates our system with engines in these roles, which learn from their steps.

    It refuses requests that it cannot admit.
    """
    settings = Settings(speculation=False, best_effort=False)
    return CalibratedSim(
        hardware=engine.hardware,
        table=engine.table,
        roles=roles,
        build=lambda engines: Planned(settings, engines, profile=engine.profile),
    )
