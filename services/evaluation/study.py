"""Searches for capacities: which ones, where each starts, and their results."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from services.evaluation.points import Point, Task
from services.evaluation.scenarios import (
    Effort,
    counted_of,
    hardware_for,
    hardware_of,
    load_on,
    programs_for,
)
from services.evaluation.search import Found, Search, capacity
from services.evaluation.settings import Setting, TuningCase
from services.evaluation.tuning_cases import tuning_case_of
from services.evaluation.upper_bound import lasting_rate, upper_bound
from services.evaluation.variants import is_ours, settings_of
from shared.hardware import Hardware
from shared.workloads.calls import rate as rate_of

_STILL_IN_RACE: Final = 8
_FEW: Final = 8  # so few settings are all tried on any number of replicas
_STRICTER: Final = 1.25  # the capacity expected at the next bar is so many times less
_BELOW: Final = 1.5  # a search starts at least so many times below the bound
_FIRST_SHARE: Final = 0.4  # of the upper bound: where a search starts


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One capacity to be found: the highest rate at which a share `bar` keeps its targets."""

    scenario: str
    system: str
    replicas: int
    bar: float
    rule: str = "mean"

    @property
    def name(self) -> str:
        return f"{self.scenario}, {self.system}, {self.replicas} x, {self.bar:.0%} {self.rule}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The result of a search, in programs per second per GPU."""

    cell: Cell
    rate: float
    failed: float
    setting: str
    points: int


class Place:
    """A scenario on so many replicas: its hardware, the programs of a point, and its bounds."""

    def __init__(
        self,
        scenario: str,
        replicas: int,
        effort: Effort,
        seed: int,
        hardware: str = "",
        *,
        by_request: bool = False,
    ) -> None:
        self.scenario, self.replicas, self.effort, self.seed = scenario, replicas, effort, seed
        self.hardware_name = hardware or hardware_for(scenario)
        self._by_request = by_request
        self._known_bounds: dict[float, tuple[float, float]] = {}

    @cached_property
    def hardware(self) -> Hardware:
        return hardware_of(self.hardware_name)

    @cached_property
    def case(self) -> TuningCase:
        return tuning_case_of(self.scenario, self.hardware_name, self.replicas, self.seed)

    @cached_property
    def _best_rate(self) -> float:
        """The best possible rate of one engine."""
        return lasting_rate(self.case.load, self.hardware, engines=1, bar=0.9)

    def programs(self, engines: int) -> int:
        """The number of programs of a point on so many engines."""
        return programs_for(self.scenario, self.effort, engines, self._best_rate)

    def bound(self, bar: float) -> float:
        """Programs per second per engine that no scheduler can exceed."""
        return min(self._bounds(bar))

    def settings(self, system: str) -> dict[str, Setting]:
        return settings_of(system, self.case)

    def task(self, system: str, setting: str, rate: float) -> Task:
        """A task; `rate` is per engine."""
        engines = len(self.settings(system)[setting].roles)
        return Task(
            scenario=self.scenario,
            hardware=self.hardware_name,
            system=system,
            setting=setting,
            replicas=self.replicas,
            engines=engines,
            rate=rate * engines,
            programs=self.programs(engines),
            seed=self.seed,
            lasting=True,
            by_request=self._by_request,
        )

    def search(
        self,
        cell: Cell,
        settings: Sequence[str] = (),
        *,
        first: float = 0.0,
        ratio: float = 0.0,
    ) -> Search:
        """The search for a cell, with these settings or with all that the system has here. It
        starts at `first` (0: unknown) and ends within `ratio` (0: the effort's).
        """
        bound = self.bound(cell.bar)
        return capacity(
            lambda setting, rate: _until_certain(self.task(cell.system, setting, rate), cell),
            settings or self.like(cell.system, None),
            bar=cell.bar,
            first=min(first, bound / _BELOW) or _FIRST_SHARE * bound,
            bound=bound,
            ratio=ratio or self.effort.ratio,
        )

    def like(self, system: str, known: Setting | None) -> list[str]:
        """Labels of the settings that equal `known` but for the fleet. Without `known`, or where
        there is none like it: all, or as many as the effort allows. If there are few settings: all.
        """
        settings = self.settings(system)
        spread = _spread(list(settings), self.effort.settings)
        if known is None:
            return spread
        if len(spread) == len(settings) <= _FEW:
            return spread
        wanted = replace(known, prefill=0, decode=0)
        alike = [
            label for label, one in settings.items() if replace(one, prefill=0, decode=0) == wanted
        ]
        return alike or spread

    def _bounds(self, bar: float) -> tuple[float, float]:
        """The bounds for the simulated load, and for one that never ends."""
        if bar not in self._known_bounds:
            programs, engines = self.programs(self.replicas), self.replicas
            load = load_on(
                self.scenario, self.hardware, rate=1.0, programs=programs, seed=self.seed
            )
            counted = load[counted_of(lasting=True, programs=len(load))]
            bound = upper_bound(counted, self.hardware, engines=engines, bar=bar)
            # The whole load has a rate of one, the counted programs have their own.
            self._known_bounds[bar] = (
                bound / rate_of(counted) / engines,
                lasting_rate(load, self.hardware, engines=engines, bar=bar) / engines,
            )
        return self._known_bounds[bar]

    def found(self, cell: Cell, found: Found) -> Capacity:
        """The capacity per GPU; an engine may have several GPUs."""
        gpus = self.hardware.gpus
        return Capacity(
            cell=cell,
            rate=found.rate / gpus,
            failed=found.failed / gpus,
            setting=found.setting,
            points=len(found.points),
        )


def _until_certain(task: Task, cell: Cell) -> Task:
    """The task, which may end only when its outcome for the cell's own bar is certain, too."""
    return replace(task, rule=cell.rule, bars=tuple(sorted({*task.bars, cell.bar})))


def campaign(
    system: str, places: Sequence[Place], bars: Sequence[float], rule: str
) -> Generator[Task, Point, list[Capacity]]:
    """Finds all cells of one system in one scenario. What was best on few replicas and at a low bar
    is tried on more and at a higher one, where only the split of the fleet is searched anew; few
    settings are all tried.
    """
    capacities: list[Capacity] = []
    known: Setting | None = None
    firsts: dict[float, float] = {}  # by bar: the capacity of fewer replicas
    for place in places:
        labels, first = place.like(system, known), 0.0
        for bar in bars:
            cell = Cell(
                scenario=place.scenario, system=system, replicas=place.replicas, bar=bar, rule=rule
            )
            found = yield from place.search(cell, labels, first=firsts.get(bar, first))
            firsts[bar], first = found.rate, found.rate / _STRICTER
            capacities.append(place.found(cell, found))
            known = known or place.settings(system)[found.setting]
            left = _last(found.points) | {found.setting}
            labels = [label for label in labels if label in left]
    return capacities


def _spread(labels: Sequence[str], most: int) -> list[str]:
    """The first, the last, and others evenly spaced between them."""
    if not most or len(labels) <= most:
        return list(labels)
    return [labels[round(place * (len(labels) - 1) / (most - 1))] for place in range(most)]


def _last(points: Sequence[Point]) -> set[str]:
    """The settings that were still in the race at the end, by the last few points."""
    return {point.task.setting for point in points[-_STILL_IN_RACE:]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Ours beside the best baseline in one scenario, and the upper bound."""

    scenario: str
    ours: float
    baseline: float
    baseline_name: str
    bound: float

    @property
    def ratio(self) -> float:
        """Infinite where every baseline's capacity is 0, nan where ours is 0, too."""
        if not self.baseline:
            return float("inf") if self.ours else float("nan")
        return self.ours / self.baseline


def compare(capacities: Iterable[Capacity], bounds: Mapping[str, float]) -> list[Comparison]:
    """Compares capacities of one number of replicas, one bar and one rule, where ours is among
    them.
    """
    found: list[Comparison] = []
    by_scenario: dict[str, dict[str, float]] = {}
    for one in capacities:
        by_scenario.setdefault(one.cell.scenario, {})[one.cell.system] = one.rate
    for scenario, rates in by_scenario.items():
        ours = next((rate for name, rate in rates.items() if is_ours(name)), None)
        baselines = {name: rate for name, rate in rates.items() if not is_ours(name)}
        if ours is None or not baselines:
            continue
        best = max(baselines, key=lambda name: baselines[name])
        found.append(
            Comparison(
                scenario=scenario,
                ours=ours,
                baseline=baselines[best],
                baseline_name=best,
                bound=bounds.get(scenario, float("nan")),
            )
        )
    return found


def geometric_mean(ratios: Sequence[float]) -> float:
    """The geometric mean; nan without ratios, or where one is not a finite number above 0."""
    if not ratios or not all(0 < ratio < float("inf") for ratio in ratios):
        return float("nan")
    product = 1.0
    for ratio in ratios:
        product *= ratio
    return float(product ** (1 / len(ratios)))


def fixed(tasks: Sequence[Task]) -> Search:
    """A search that yields just these tasks."""
    points: list[Point] = []
    for task in tasks:
        points.append((yield task))  # noqa: PERF401 - a generator cannot be had inside a list
    return Found(rate=0.0, setting="", failed=0.0, points=tuple(points))
