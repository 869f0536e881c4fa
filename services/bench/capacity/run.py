"""Runs `bench capacity`: starts and ends the systems, and measures them in order."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from services.bench.capacity.asking import Asked, Measure, text_ids
from services.bench.capacity.classes import Multiples, Targets, mix
from services.bench.capacity.options import CapacityOptions
from services.bench.capacity.pace import first_rate, point_seconds, speculation_rounds
from services.bench.capacity.points import Point
from services.bench.capacity.result import CapacityResult
from services.bench.capacity.saturation import in_turns
from services.bench.capacity.stage import Say, Stage
from services.bench.capacity.systems import OURS, SAME_STEP_TOKENS, STOCK, System, Systems
from services.bench.capacity.trace import TraceScale, read_trace
from services.bench.capacity.trial import Trial
from services.bench.capacity.workload import Load, Prompts, poisson
from shared.clock import Clock
from shared.errors import SlosError

_POISSON_COUNT: Final = 20_000  # requests made beforehand, more than any point has
_TURNS: Final = 2
AGAIN: Final = "vllm-again"
WITH_DRAFTS: Final = "+ngram"


def loads_of(options: CapacityOptions) -> list[Load]:
    """The loads. Raises ConfigError for an unknown mix or an unreadable trace."""
    scale = TraceScale(
        start_s=options.trace_start_s, prompt=options.prompt_scale, output=options.output_scale
    )
    mixes = [
        poisson(f"poisson {name}", mix(name), options.seed, _POISSON_COUNT)
        for name in options.mixes
    ]
    traces = [
        read_trace(Path(path).expanduser(), mix("mixed"), scale, options.seed)
        for path in options.trace
    ]
    return [*mixes, *traces]


@dataclass(slots=True, kw_only=True)
class Run:
    """One measurement; `result` has its results so far."""

    options: CapacityOptions
    loads: Sequence[Load]
    systems: Systems
    stage: Stage
    clock: Clock
    say: Say
    result: CapacityResult
    configuration: Path
    _up: dict[str, Asked] = field(default_factory=dict)

    async def all(self) -> None:
        """Measures everything. Raises errors of the first systems; later ones become notes."""
        options = self.options
        budgets = options.token_budgets if options.search else (SAME_STEP_TOKENS,)
        stock = [f"{STOCK}-{tokens}" for tokens in budgets]
        self.result.point_s = point_seconds(options, len(self.loads))
        for name, tokens in zip(stock, budgets, strict=True):
            await self._start(self.systems.stock(name, tokens))
        measure, targets = await self._look_at_idle(self._up[stock[-1]])
        others = await self._start_others(measure)
        trial = self._trial(measure, targets)
        best = stock[0]
        contenders: dict[str, tuple[str, ...]] = {
            STOCK: tuple(stock),
            others[0]: tuple(others),
        }
        if options.search:
            for load in self.loads:
                found = await trial.search(load, contenders, options.rounds)
                contenders = {name: (found[name].best_variant,) for name in contenders}
                best = contenders[STOCK][0]
                await self._end_all_but([best, *others])
            await self._overload(trial, best, contenders[others[0]][0])
        if options.saturation:
            await self._saturation(measure, others[0])
        await self._end_all_but([])
        await self._later(trial, measure, best)

    def _trial(self, measure: Measure, targets: Targets) -> Trial:
        async def take(system: str, load: Load, rate_rps: float) -> Point:
            asked, seconds = self._up[system], self.result.point_s
            turn = self.result.times_taken(system, load, rate_rps)
            point = await measure.point(asked, load, rate_rps, seconds, targets, turn=turn)
            self.say(point.line())
            return point

        def first_rps(load: Load, contender: str) -> float:
            return self._first_rps(contender) or first_rate(load, targets.zero_load)

        return Trial(take=take, result=self.result, first_rps=first_rps)

    def _first_rps(self, contender: str) -> float:
        """The first rate as given, or the known capacity of the same system; 0 if unknown."""
        base = contender.removesuffix(WITH_DRAFTS)
        found = [
            float(self.result.capacity_json(one)["capacity_rps"])
            for one in self.result.searched
            if one.contender == base
        ]
        return self.options.first_rate or next((one for one in found if one), 0.0)

    async def _later(self, trial: Trial, measure: Measure, best: str) -> None:
        options = self.options
        if options.speculation_tokens and options.search:
            await self._or_note("speculation", self._speculation(trial, measure, best))
        if options.fleet and options.ours:
            await self._or_note("two engines", self._fleet(trial, measure))

    async def _or_note(self, name: str, part: Awaitable[None]) -> None:
        """Runs `part`; an error becomes a note, so that earlier results are kept."""
        try:
            await part
        except SlosError as error:
            self.result.notes.append(f"{name}: not measured: {error}")
            self.say(self.result.notes[-1])
        await self._end_all_but([])

    async def _look_at_idle(self, asked: Asked) -> tuple[Measure, Targets]:
        """Measures the zero-load times of stock vLLM, from which all targets come."""
        options = self.options
        measure = Measure(
            clock=self.clock,
            text_ids=await text_ids(asked.client),
            seed=options.seed,
            drain_s=options.drain_s,
        )
        for one in self._up.values():
            await measure.warm_up(one)
        targets = Targets(
            zero_load=await measure.zero_load(asked),
            multiples=Multiples(
                tight_ttft=options.tight_ttft,
                loose_ttft=options.loose_ttft,
                tight_tpot=options.tight_tpot,
                loose_tpot=options.loose_tpot,
            ),
        )
        self.result.targets = targets
        gateway = {"classes": targets.configuration()}
        self.configuration.write_text(yaml.safe_dump({"gateway": gateway}))
        self.say(f"idle: {targets.zero_load.as_json()}; a point takes {self.result.point_s:.0f} s")
        return measure, targets

    async def _start_others(self, measure: Measure) -> list[str]:
        options = self.options
        if options.ours:
            others = [self.systems.ours(OURS, self.configuration)]
        else:
            others = [
                self.systems.stock(f"{AGAIN}-{tokens}", tokens) for tokens in options.token_budgets
            ]
        for system in others:
            await measure.warm_up(await self._start(system))
        return [system.name for system in others]

    async def _start(self, system: System) -> Asked:
        client = await self.stage.start(system)
        asked = Asked(name=system.name, client=client, knows_slos=system.knows_slos)
        self._up[system.name] = asked
        return asked

    async def _end_all_but(self, kept: Sequence[str]) -> None:
        for name in [one for one in self._up if one not in kept]:
            del self._up[name]
            await self.stage.end(name)

    async def _overload(self, trial: Trial, stock: str, other: str) -> None:
        ours = self.result.searched[1]  # the other on the first load
        capacity_rps = self.result.capacity_json(ours)["capacity_rps"]
        if self.options.overload and capacity_rps:
            rate_rps = self.options.overload * capacity_rps
            self.result.overload += [
                await trial.take(name, self.loads[0], rate_rps) for name in (stock, other)
            ]

    async def _saturation(self, measure: Measure, other: str) -> None:
        """Measures throughput; stock vLLM has the same token budget per step as ours."""
        stock = f"{STOCK}-{SAME_STEP_TOKENS}"
        await self._end_all_but([stock, other])
        if stock not in self._up:
            await measure.warm_up(await self._start(self.systems.stock(stock, SAME_STEP_TOKENS)))
        self.result.throughputs += await in_turns(
            [self._up[stock], self._up[other]],
            Prompts(measure.text_ids, self.options.seed + 1),
            self.clock,
            in_flight=self.options.saturation_in_flight,
            seconds=self.result.point_s,
            turns=_TURNS,
        )

    async def _speculation(self, trial: Trial, measure: Measure, best: str) -> None:
        """Searches both systems with drafts, starting at the capacity without."""
        drafts = self.options.speculation_tokens
        step_tokens = int(best.rpartition("-")[2])
        systems = [self.systems.stock(f"{best}{WITH_DRAFTS}", step_tokens, drafts)]
        if self.options.ours:
            name = f"{OURS}{WITH_DRAFTS}"
            systems.append(self.systems.ours(name, self.configuration, drafts))
        for system in systems:
            await measure.warm_up(await self._start(system))
        names = (f"{STOCK}{WITH_DRAFTS}", f"{OURS}{WITH_DRAFTS}")
        contenders = {name: (system.name,) for name, system in zip(names, systems, strict=False)}
        await trial.search(self.loads[0], contenders, speculation_rounds(self.options))

    async def _fleet(self, trial: Trial, measure: Measure) -> None:
        """Searches a prefill and a decode engine, and two that do both, placed by our planner."""
        pairs = {"prefill and decode": ("prefill", "decode"), "both co-located": ("decode",) * 2}
        contenders = {name: (name,) for name in pairs}
        for name, roles in pairs.items():
            system = self.systems.ours_in_two(name, self.configuration, roles)
            await measure.warm_up(await self._start(system))
        await trial.search(self.loads[0], contenders, self.options.rounds)
