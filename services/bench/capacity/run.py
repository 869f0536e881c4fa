"""The course of `bench capacity`: which systems are up when, and which are asked in which order."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from services.bench.capacity.asking import Asked, Measure, text_ids
from services.bench.capacity.classes import Multiples, Targets, mix
from services.bench.capacity.options import CapacityOptions
from services.bench.capacity.pace import first_rate, point_seconds, speculation_rounds
from services.bench.capacity.points import Point
from services.bench.capacity.result import CapacityResult, Searched
from services.bench.capacity.saturation import in_turns
from services.bench.capacity.search import Bisection, Contender
from services.bench.capacity.stage import Say, Stage
from services.bench.capacity.systems import OURS, STOCK, System, Systems
from services.bench.capacity.trace import TraceScale, read_trace
from services.bench.capacity.workload import Load, Prompts, poisson
from shared.clock import Clock
from shared.errors import SlosError

_POISSON_COUNT: Final = 20_000  # requests made beforehand, more than any point has
_TURNS: Final = 2
AGAIN: Final = "vllm-again"
WITH_DRAFTS: Final = "+ngram"


def loads_of(options: CapacityOptions) -> list[Load]:
    """Raises ConfigError for an unknown mix or a trace that cannot be read."""
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
    """One measurement. What it finds is in `result` at any time."""

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
        """Raises what a fault of the first systems is; later ones become notes."""
        options = self.options
        stock = [f"{STOCK}-{tokens}" for tokens in options.token_budgets]
        self.result.point_s = point_seconds(options, len(self.loads))
        for name, tokens in zip(stock, options.token_budgets, strict=True):
            await self._start(self.systems.stock(name, tokens))
        measure, targets = await self._look_at_idle(self._up[stock[-1]])
        rivals = await self._start_rivals(measure)
        trial = _Trial(run=self, measure=measure, targets=targets)
        best = stock[0]
        contenders = {STOCK: tuple(stock), rivals[0]: tuple(rivals)}
        if options.search:
            for load in self.loads:
                found = await trial.search(load, contenders, options.rounds)
                contenders = {name: (found[name].best_variant,) for name in contenders}
                best = contenders[STOCK][0]
                await self._end_all_but([best, *rivals])
            await self._overload(trial, best, contenders[rivals[0]][0])
        if options.saturation:
            await self._saturation(measure, [best, rivals[0]])
        await self._end_all_but([])
        await self._later(trial, best)

    async def _later(self, trial: "_Trial", best: str) -> None:
        """What is worth a note, not the whole run, when it fails."""
        options = self.options
        parts: list[tuple[bool, str, Callable[[], Awaitable[None]]]] = [
            (
                bool(options.speculation_tokens and options.search),
                "speculation",
                lambda: self._speculation(trial, best),
            ),
            (options.fleet and options.ours, "two engines", lambda: self._fleet(trial)),
        ]
        for wanted, name, part in parts:
            if not wanted:
                continue
            try:
                await part()
            except SlosError as error:
                self.result.notes.append(f"{name}: not measured: {error}")
                self.say(self.result.notes[-1])
            await self._end_all_but([])

    async def _look_at_idle(self, asked: Asked) -> tuple[Measure, Targets]:
        """Zero-load times of stock vLLM, from which all targets come."""
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

    async def _start_rivals(self, measure: Measure) -> list[str]:
        options = self.options
        if options.ours:
            rivals = [self.systems.ours(OURS, self.configuration)]
        else:
            rivals = [
                self.systems.stock(f"{AGAIN}-{tokens}", tokens) for tokens in options.token_budgets
            ]
        for system in rivals:
            await measure.warm_up(await self._start(system))
        return [system.name for system in rivals]

    async def _start(self, system: System) -> Asked:
        client = await self.stage.start(system)
        asked = Asked(name=system.name, client=client, knows_slos=system.knows_slos)
        self._up[system.name] = asked
        return asked

    async def _end_all_but(self, kept: Sequence[str]) -> None:
        for name in [one for one in self._up if one not in kept]:
            del self._up[name]
            await self.stage.end(name)

    async def _overload(self, trial: "_Trial", stock: str, rival: str) -> None:
        ours = self.result.searched[1]  # the rival on the first load
        capacity_rps = self.result.capacity_json(ours)["capacity_rps"]
        if self.options.overload and capacity_rps:
            self.result.overload_rps = self.options.overload * capacity_rps
            for name in (stock, rival):
                await trial.point(name, self.loads[0], self.result.overload_rps)

    async def _saturation(self, measure: Measure, names: Sequence[str]) -> None:
        self.result.throughputs += await in_turns(
            [self._up[name] for name in names],
            Prompts(measure.text_ids, self.options.seed + 1),
            self.clock,
            in_flight=self.options.saturation_in_flight,
            seconds=self.result.point_s,
            turns=_TURNS,
        )

    async def _speculation(self, trial: "_Trial", best: str) -> None:
        """Both with drafts, from the capacity without on."""
        drafts = self.options.speculation_tokens
        step_tokens = int(best.rpartition("-")[2])
        systems = [self.systems.stock(f"{best}{WITH_DRAFTS}", step_tokens, drafts)]
        if self.options.ours:
            name = f"{OURS}{WITH_DRAFTS}"
            systems.append(self.systems.ours(name, self.configuration, drafts))
        for system in systems:
            await trial.measure.warm_up(await self._start(system))
        names = (f"{STOCK}{WITH_DRAFTS}", f"{OURS}{WITH_DRAFTS}")
        contenders = {name: (system.name,) for name, system in zip(names, systems, strict=False)}
        await trial.search(self.loads[0], contenders, speculation_rounds(self.options))

    async def _fleet(self, trial: "_Trial") -> None:
        """A prefill and a decode engine, and two that do both; where each runs is our choice."""
        pairs = {"prefill and decode": ("prefill", "decode"), "both co-located": ("decode",) * 2}
        contenders = {name: (name,) for name in pairs}
        for name, roles in pairs.items():
            system = self.systems.ours_in_two(name, self.configuration, roles)
            await trial.measure.warm_up(await self._start(system))
        await trial.search(self.loads[0], contenders, self.options.rounds)

    def asked(self, name: str) -> Asked:
        return self._up[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """Searches and single points of a run."""

    run: Run
    measure: Measure
    targets: Targets

    async def search(
        self, load: Load, contenders: Mapping[str, tuple[str, ...]], rounds: int
    ) -> dict[str, Contender]:
        """In each round every contender at its own next rate, in turns, the order changing."""
        made = {
            name: Contender(
                name=name, variants=variants, bisection=Bisection(self._first_rate(load, name))
            )
            for name, variants in contenders.items()
        }
        self.run.result.searched += [
            Searched(load=load.name, contender=name, variants=variants)
            for name, variants in contenders.items()
        ]
        for number in range(rounds):
            turns = list(made.values())
            for contender in turns if number % 2 == 0 else reversed(turns):
                rate_rps = contender.bisection.next_rps
                points = {
                    name: await self.point(name, load, rate_rps) for name in contender.variants
                }
                attainments = {name: point.attainment for name, point in points.items()}
                contender.note(rate_rps, attainments, self.run.options.attainment)
        return made

    async def point(self, name: str, load: Load, rate_rps: float) -> Point:
        result, asked = self.run.result, self.run.asked(name)
        point = await self.measure.point(asked, load, rate_rps, result.point_s, self.targets)
        result.points.append(point)
        low, high = point.interval
        self.run.say(
            f"{load.name}, {name}: {rate_rps:.2f}/s, {len(point.judged)} requests, "
            f"{point.attainment:.0%} attained ({low:.0%} to {high:.0%}), "
            f"{point.busy_cores:.1f} cores busy before"
        )
        return point

    def _first_rate(self, load: Load, contender: str) -> float:
        """What was told, or the capacity found of the same system before, or by the idle times."""
        run, base = self.run, contender.removesuffix(WITH_DRAFTS)
        if run.options.first_rate:
            return run.options.first_rate
        found = [
            float(run.result.capacity_json(one)["capacity_rps"])
            for one in run.result.searched
            if one.contender == base
        ]
        known = [capacity_rps for capacity_rps in found if capacity_rps]
        return known[0] if known else first_rate(load, self.targets.zero_load)
