"""The parts of the evaluation: the points of each, and the results made of them."""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from services.evaluation.drive import Points, WorkerPool, drive
from services.evaluation.points import Point, Task
from services.evaluation.results import RULES, Bound, Burst, Load, Results, Scale
from services.evaluation.scenarios import TRACE, Effort, hardware_of
from services.evaluation.search import Found
from services.evaluation.stage import Told
from services.evaluation.study import Capacity, Cell, Place, campaign, fixed
from services.evaluation.systems import OURS, ROUTERS, SYSTEMS
from services.evaluation.variants import ABLATIONS, ablated, closest

Heard = Callable[[int, int, Task], None]
_SHARES: Final = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # of our capacity: the loads that are shown
_QUICK_SHARES: Final = (0.5, 1.0, 1.5)
_ABLATED: Final = ("ChatBot", "Coder", "Mixed", "ToolLLM")  # as many as the paper's figure has
_ABLATION_REPLICAS: Final = 2  # the fewest that placement and disaggregation need
_QUICK_ABLATED: Final = ("Coder",)
_SCALED: Final = ("ChatBot", "Coder")
_SIZES: Final = (1, 2, 4, 8, 16, 64)
_QUICK_SIZES: Final = (1, 2, 4)
_LARGE, _LARGE_RATIO = 64, 1.6  # a coarser ratio: a point of so many replicas takes minutes
_BURSTY: Final = "Coder"
_BURST_REPLICAS: Final = 4


@dataclass(slots=True, kw_only=True)
class Evaluation:
    """Runs parts and stores their results in `results`."""

    effort: Effort
    seed: int
    pool: WorkerPool
    points: Points
    results: Results
    folder: Path
    hear: Callable[[str], Heard]  # the listener of a part, by its name
    show: Callable[[str], Told]  # the same for a part without points
    hardware: str = ""
    data: str = ""  # folder of loads that others published
    numbers: Sequence[str] = ()  # tuned numbers that are changed; none: all
    older: bool = False  # results of other versions of the code count, too
    code_trace: str = ""  # a trace file of a coding service, in place of synthetic arrivals
    _places: dict[tuple[str, int], Place] = field(default_factory=dict)

    def place(self, scenario: str, replicas: int) -> Place:
        key = (scenario, replicas)
        if key not in self._places:
            self._places[key] = Place(scenario, replicas, self.effort, self.seed, self.hardware)
        return self._places[key]

    # ---- capacity

    def capacity(
        self,
        scenarios: Sequence[str],
        systems: Sequence[str],
        replicas: Sequence[int],
        bars: Sequence[float],
    ) -> None:
        """Finds the capacity of every system in every scenario by the rule that decides, and the
        bounds.
        """
        bars, rule = sorted(bars), self.results.rule.value
        searches = {
            f"{scenario}, {system}, {rule}": campaign(
                system, [self.place(scenario, size) for size in sorted(replicas)], bars, rule
            )
            for scenario in scenarios
            for system in systems
        }
        for found in drive(searches, self.pool, self.points, self.hear(rule)).values():
            self.results.capacities += found
        self._bounds(scenarios, replicas, bars)

    def _bounds(
        self, scenarios: Sequence[str], replicas: Sequence[int], bars: Sequence[float]
    ) -> None:
        for scenario in scenarios:
            for size in replicas:
                place = self.place(scenario, size)
                for bar in bars:
                    rate = place.bound(bar) / place.hardware.gpus
                    found = Bound(scenario=scenario, replicas=size, bar=bar, rate=rate)
                    self.results.bounds.append(found)

    def rules(self, scenarios: Sequence[str], systems: Sequence[str], bar: float) -> None:
        """Finds the capacity of one replica by the other two rules of attainment, in the settings
        that were best by the first.
        """
        for rule in RULES[1:]:
            searches = {
                f"{scenario}, {system}, {rule}": self._by_rule(scenario, system, bar, rule)
                for scenario in scenarios
                for system in systems
            }
            found = drive(searches, self.pool, self.points, self.hear(rule))
            self.results.capacities += found.values()

    def _by_rule(
        self, scenario: str, system: str, bar: float, rule: str
    ) -> Generator[Task, Point, Capacity]:
        place = self.place(scenario, 1)
        cell = Cell(scenario=scenario, system=system, replicas=1, bar=bar, rule=rule)
        first = self.rate(scenario, system, 1, bar)
        found = yield from place.search(cell, [self.setting(scenario, system, 1)], first=first)
        return place.found(cell, found)

    def setting(self, scenario: str, system: str, replicas: int) -> str:
        """The best setting that a search has found; the first of all where none was made."""
        for one in self.results.capacities:
            cell = one.cell
            if (cell.scenario, cell.system, cell.replicas) == (scenario, system, replicas):
                return one.setting
        return next(iter(self.place(scenario, replicas).settings(system)))

    def rate(self, scenario: str, system: str, replicas: int, bar: float) -> float:
        """The capacity found per engine; a third of the bound where there was no search."""
        for one in self.results.at(replicas, bar):
            if (one.cell.scenario, one.cell.system) == (scenario, system) and one.rate:
                return one.rate * self.place(scenario, replicas).hardware.gpus
        return self.place(scenario, replicas).bound(bar) / 3

    # ---- attainment over load

    def curves(
        self, scenarios: Sequence[str], systems: Sequence[str], bar: float, replicas: int = 1
    ) -> None:
        """Measures attainment at shares of our capacity, without early ends."""
        shares = _QUICK_SHARES if self.effort.name == "quick" else _SHARES
        searches = {
            f"{scenario}, {system}": fixed(self._curve(scenario, system, bar, replicas, shares))
            for scenario in scenarios
            for system in systems
        }
        for found in drive(searches, self.pool, self.points, self.hear("curves")).values():
            self.results.loads += [self._load(point) for point in found.points]

    def _curve(
        self, scenario: str, system: str, bar: float, replicas: int, shares: Sequence[float]
    ) -> list[Task]:
        place = self.place(scenario, replicas)
        setting = self.setting(scenario, system, replicas)
        ours = self.rate(scenario, OURS, replicas, bar)
        tasks = [place.task(system, setting, ours * share) for share in shares]
        return [replace(task, rule=self.results.rule.value, bars=()) for task in tasks]

    def _load(self, point: Point) -> Load:
        everyone = point.classes[0]
        return Load(
            scenario=point.task.scenario,
            system=point.task.system,
            setting=point.task.setting,
            rate=self.for_each_gpu(point.task),
            attained={rule: low for rule, (low, _) in point.attained.items()},
            ttft_s=everyone.ttft_s,
            tpot_s=everyone.tpot_s,
            batches=point.batches,
        )

    def for_each_gpu(self, task: Task) -> float:
        """Programs per second that a task offers to one of its GPUs."""
        return task.rate / (task.engines * hardware_of(task.hardware).gpus)

    # ---- ablations

    def ablations(self, bar: float) -> None:
        """Finds the capacity of each ablation of ours, on two replicas."""
        searches = {
            f"{scenario}, {system}": self._ablation(scenario, system, bar)
            for scenario in (_QUICK_ABLATED if self.effort.name == "quick" else _ABLATED)
            for system in (OURS, *(ablated(name) for name in ABLATIONS))
        }
        found = drive(searches, self.pool, self.points, self.hear("ablations"))
        self.results.ablations += list(found.values())

    def _ablation(self, scenario: str, system: str, bar: float) -> Generator[Task, Point, Capacity]:
        place = self.place(scenario, _ABLATION_REPLICAS)
        cell = Cell(
            scenario=scenario, system=system, replicas=_ABLATION_REPLICAS, bar=bar, rule="mean"
        )
        found = yield from place.search(cell, self._ablation_settings(place))
        return place.found(cell, found)

    def _ablation_settings(self, place: Place) -> list[str]:
        """One label for each split of the fleet."""
        labels: dict[tuple[object, ...], str] = {}
        for label, setting in place.settings(OURS).items():
            labels.setdefault(setting.roles, label)
        return list(labels.values())

    # ---- bursts

    def bursts(self, systems: Sequence[str], bar: float) -> None:
        """Runs the coding load at our capacity, with a timeline of what became of its requests."""
        place = self.place(_BURSTY, _BURST_REPLICAS)
        rate = self.rate(_BURSTY, OURS, _BURST_REPLICAS, bar)
        tasks = [
            place.task(system, self.setting(_BURSTY, system, _BURST_REPLICAS), rate)
            for system in systems
        ]
        if self.code_trace:
            tasks = [self._on_trace(task) for task in tasks]
        lasts_s = place.programs(_BURST_REPLICAS) / _BURST_REPLICAS / rate
        bin_s = max(0.5, round(lasts_s / 120, 1))
        searches = {task.system: fixed([replace(task, bars=(), bin_s=bin_s)]) for task in tasks}
        for found in drive(searches, self.pool, self.points, self.hear("bursts")).values():
            self.results.bursts += [self._burst(point) for point in found.points]

    def _on_trace(self, task: Task) -> Task:
        """The task with the arrivals of the user's trace and the nearest thresholds."""
        here = self.place(f"{TRACE}:{_BURSTY}:{self.code_trace}", task.replicas)
        chosen = self.place(_BURSTY, task.replicas).settings(task.system)[task.setting]
        setting = closest(chosen, here.settings(task.system).values())
        return replace(task, scenario=here.scenario, setting=setting.label)

    def _burst(self, point: Point) -> Burst:
        everyone = point.classes[0]
        return Burst(
            system=point.task.system,
            setting=point.task.setting,
            rate=self.for_each_gpu(point.task),
            bin_s=point.task.bin_s,
            attained=point.attained["mean"][0],
            ttft_share=everyone.ttft_share,
            tpot_share=everyone.tpot_share,
            timeline=point.timeline,
        )

    # ---- scaling

    def scaling(self, bar: float) -> None:
        """Finds the capacity of ours on more and more replicas."""
        sizes = _QUICK_SIZES if self.effort.name == "quick" else _SIZES
        searches = {scenario: self._scales(scenario, sizes, bar) for scenario in _SCALED}
        for found in drive(searches, self.pool, self.points, self.hear("scaling")).values():
            self.results.scaling += found

    def _scales(
        self, scenario: str, sizes: Sequence[int], bar: float
    ) -> Generator[Task, Point, list[Scale]]:
        """Starts the search of each size at the rate that the size before it carried."""
        scales: list[Scale] = []
        first = 0.0
        for size in sizes:
            place = self.place(scenario, size)
            cell = Cell(scenario=scenario, system=OURS, replicas=size, bar=bar)
            ratio = _LARGE_RATIO if size >= _LARGE else 0.0
            settings = [next(iter(place.settings(OURS)))]
            found = yield from place.search(cell, settings, first=first, ratio=ratio)
            first = found.rate
            scales.append(_scale(place, cell, found))
        return scales


def _scale(place: Place, cell: Cell, found: Found) -> Scale:
    """The result of a size, with decision times at the highest rate that passed, or at the last
    rate where none did.
    """
    engines = cell.replicas
    passed = [one for one in found.points if math.isclose(one.task.rate, found.rate * engines)]
    shown = (passed or list(found.points))[-1]
    return Scale(
        scenario=cell.scenario,
        replicas=engines,
        rate=place.found(cell, found).rate,
        decision_ms=shown.decision_ms,
    )


def systems_of(names: Sequence[str]) -> tuple[str, ...]:
    """These systems. Where none is named, all but those that differ from `vllm` in the choice of
    engines alone: `services.evaluation.prefixes` compares these.
    """
    return tuple(names) or tuple(name for name in SYSTEMS if name not in ROUTERS)
