"""Runs `bench fidelity`: starts, measures, ends and simulates each system in turn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from services.bench.capacity.asking import Asked, Measure, text_ids
from services.bench.capacity.classes import Multiples, Targets, mix
from services.bench.capacity.judge import Judged
from services.bench.capacity.pace import first_rate
from services.bench.capacity.points import Point
from services.bench.capacity.stage import Say, Stage
from services.bench.capacity.systems import OURS, STOCK, System, Systems
from services.bench.capacity.workload import Load, poisson
from services.bench.fidelity.calibrated_sim import CalibratedSim, ours, stock
from services.bench.fidelity.compare import Compared, Outcome, Side, seen
from services.bench.fidelity.options import FidelityOptions
from services.bench.fidelity.own_engine import OwnEngine
from services.bench.machine import busy_s, own_s
from shared.clock import Clock
from shared.engines import Role

_COUNT: Final = 20_000  # requests made beforehand, more than any point has
_MULTIPLES: Final = Multiples(tight_ttft=3.0, loose_ttft=10.0, tight_tpot=1.75, loose_tpot=5.0)
FLEET: Final = f"{OURS}, prefill and decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A system, and its simulation before that is calibrated."""

    system: System
    sim: CalibratedSim
    wanted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """The calibration of a simulation, by requests other than the compared ones."""

    system: str
    slower: float
    on_the_way_ms: float


@dataclass(slots=True, kw_only=True)
class FidelityRun:
    """One run; `compared` and `requests` have its results so far."""

    options: FidelityOptions
    systems: Systems
    stage: Stage
    clock: Clock
    say: Say
    configuration: Path
    engine: OwnEngine
    compared: list[Compared] = field(default_factory=list)
    calibrated: list[Calibrated] = field(default_factory=list)
    requests: dict[str, list[tuple[Outcome, Outcome]]] = field(default_factory=dict)
    _load: Load = field(init=False)
    _targets: Targets | None = None
    _first_rps: float = 0.0
    _others_cores: float = 0.0  # during the last point

    def __post_init__(self) -> None:
        self._load = poisson("poisson", mix(self.options.mix), self.options.seed, _COUNT)

    async def all(self) -> None:
        """Compares all systems. Raises DeadlinePassed, PartDied and AnswerFailed."""
        for pair in self._pairs():
            measure = await self._start(pair.system)
            if pair.wanted:
                await self._compare(pair, *measure)
            await self.stage.end(pair.system.name)

    def _pairs(self) -> list[Pair]:
        options, systems = self.options, self.systems
        name = f"{STOCK}-{options.step_tokens}"
        sim = stock(self.engine, options.step_tokens)
        system = systems.stock(name, options.step_tokens)  # all targets come from its idle times
        pairs = [Pair(system=system, sim=sim, wanted=options.stock)]
        if options.ours:
            sim = ours(self.engine, (Role.DECODE,))
            pairs.append(Pair(system=systems.ours(OURS, self.configuration), sim=sim))
        if options.fleet:
            roles = ("prefill", "decode")
            sim = ours(self.engine, (Role.PREFILL, Role.DECODE))
            system = systems.ours_in_two(FLEET, self.configuration, roles)
            pairs.append(Pair(system=system, sim=sim))
        return pairs

    async def _start(self, system: System) -> tuple[Asked, Measure]:
        """Starts a system and warms it up; the first one gives the zero-load times and targets."""
        client = await self.stage.start(system)
        asked = Asked(name=system.name, client=client, knows_slos=system.knows_slos)
        measure = Measure(
            clock=self.clock,
            text_ids=await text_ids(client),
            seed=self.options.seed,
            drain_s=self.options.drain_s,
        )
        await measure.warm_up(asked)
        if self._targets is None:
            self._targets = Targets(zero_load=await measure.zero_load(asked), multiples=_MULTIPLES)
            self._first_rps = first_rate(self._load, self._targets.zero_load)
            gateway = {"classes": self._targets.configuration()}
            self.configuration.write_text(yaml.safe_dump({"gateway": gateway}))
            self.say(f"idle: {self._targets.zero_load.as_json()}")
        return asked, measure

    async def _compare(self, pair: Pair, asked: Asked, measure: Measure) -> None:
        before = await self._point(asked, measure, self.options.calibrating_load)
        wait_s, seed = self._wait_s(before), self.options.seed
        sim = pair.sim.calibrated(before.judged, wait_s=wait_s, seed=seed)
        self.calibrated.append(
            Calibrated(
                system=asked.name,
                slower=round(sim.slower, 3),
                on_the_way_ms=1000 * sim.on_the_way_s,
            )
        )
        self.say(f"{self.calibrated[-1]}")
        earlier = list(before.judged)
        for multiple in self.options.loads:
            point = await self._point(asked, measure, multiple)
            self._note(point, sim, earlier)
            earlier += point.judged

    async def _point(self, asked: Asked, measure: Measure, multiple: float) -> Point:
        assert self._targets is not None
        rate_rps, seconds = multiple * self._first_rps, self.options.point_s
        load, targets = self._load, self._targets
        before_s, busy_before_s, own_before_s = self.clock.now(), busy_s(), own_s()
        point = await measure.point(asked, load, rate_rps, seconds, targets, turn=0)
        others_s = (busy_s() - busy_before_s) - (own_s() - own_before_s)
        self._others_cores = max(0.0, others_s) / (self.clock.now() - before_s)
        self.say(f"{point.line()}; others took {self._others_cores:.2f} cores meanwhile")
        return point

    def _note(self, point: Point, sim: CalibratedSim, earlier: Sequence[Judged]) -> None:
        real, wait_s = seen(point.judged), self._wait_s(point)
        simulated = [
            sim.outcomes(
                point.judged, wait_s=wait_s, seed=self.options.seed + number, before=earlier
            )
            for number in range(self.options.twins)
        ]
        compared = Compared(
            system=point.system,
            rate_rps=point.rate_rps,
            requests=len(point.judged),
            others_cores=self._others_cores,
            slower=sim.slower,
            real=Side.of(real),
            simulated=Side.of([outcome for outcomes in simulated for outcome in outcomes]),
            runs=[Side.of(outcomes) for outcomes in simulated],
        )
        self.compared.append(compared)
        self.requests.setdefault(point.system, []).extend(zip(real, simulated[0], strict=True))
        self.say(f"{compared.as_json()}")

    def _wait_s(self, point: Point) -> float:
        """Seconds from the last arrival to the cut of the running system's open requests."""
        last_s = max(one.seen.offered.at_s for one in point.judged)
        return point.seconds - last_s + self.options.drain_s
