"""All results of an evaluation, as plain data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from services.evaluation.leave_one_out.effects import ChangeEffect
from services.evaluation.points import Bin, ClassTimes, RetryCounts
from services.evaluation.regret.play import Regret
from services.evaluation.study import Capacity, Comparison, compare
from shared.simulation.judge import Rule

EVALUATE: Final = "slos-serve evaluate"
RULES: Final = (Rule.MEAN.value, Rule.WINDOWS.value, Rule.DEADLINES.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A rate that no scheduler can exceed, in programs per second per GPU."""

    scenario: str
    replicas: int
    bar: float
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One system at one rate (programs per second per GPU), not ended early.

    `attained` by rule. Times are seconds, p50 and p99 of admitted requests.
    """

    scenario: str
    system: str
    setting: str
    rate: float
    attained: Mapping[str, float]
    ttft_s: tuple[float, float]
    tpot_s: tuple[float, float]
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """One system under a bursty load; `ttft_share` and `tpot_share` are p99 of admitted requests
    over their targets.
    """

    system: str
    setting: str
    rate: float
    bin_s: float
    attained: float
    ttft_share: float
    tpot_share: float
    timeline: tuple[Bin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Ours on so many replicas: capacity per GPU, and the decision times there, in ms."""

    scenario: str
    replicas: int
    rate: float
    decision_ms: tuple[float, float, float]  # rounds p50 and p99, mean for each request


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """One system at a multiple of our capacity. `rate`: programs per second offered to one GPU;
    `kept`: the share of them in time, as asked, in the middle of the load. `classes` cover all of
    its `programs`, the first entry all classes together.
    """

    scenario: str
    system: str
    setting: str
    multiple: float
    rate: float
    programs: int
    kept: float
    classes: tuple[ClassTimes, ...]

    @property
    def goodput(self) -> float:
        """Programs in time per second for each GPU."""
        return self.rate * self.kept

    def goodput_of(self, one: ClassTimes) -> float:
        """Requests of a class in time per second for each GPU."""
        return self.rate * one.requests * one.attained[Rule.ASKED] / self.programs


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """Ours at a multiple of its capacity with clients that retry once when refused: after the time
    that the answer names, and after a fixed one. `ends`: only the first half of the load is an
    overload.
    """

    scenario: str
    multiple: float
    ends: bool
    named: RetryCounts
    fixed: RetryCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Outsider:
    """A published load, and the capacities of all systems on it by several rules.

    `share` of the requests must be in time; `scale` is the factor on its prompts; `bound` is the
    upper bound of the rate, in programs per second per GPU.
    """

    scenario: str
    hardware: str
    share: float
    scale: float
    bound: float
    capacities: tuple[Capacity, ...]


@dataclass(slots=True, kw_only=True)
class Results:
    """Filled part by part; a part that is empty has not been run. `rule` decides where no other is
    named, `command` is the command that ran. The folder `regret_loads` has files that replay
    `regrets`.
    """

    effort: str
    seed: int
    machine: str
    rule: Rule = Rule.MEAN
    command: str = EVALUATE
    capacities: list[Capacity] = field(default_factory=list)
    bounds: list[Bound] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    ablations: list[Capacity] = field(default_factory=list)
    bursts: list[Burst] = field(default_factory=list)
    scaling: list[Scale] = field(default_factory=list)
    overloads: list[Overload] = field(default_factory=list)
    retries: list[Retried] = field(default_factory=list)
    regrets: list[Regret] = field(default_factory=list)
    regret_loads: str = ""
    outsiders: list[Outsider] = field(default_factory=list)
    as_in_paper: list[Capacity] = field(default_factory=list)
    effects: list[ChangeEffect] = field(default_factory=list)
    points: int = 0
    measured_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def tables(self) -> list[tuple[int, float]]:
        """The replicas and bars of all capacities by the deciding rule."""
        decided = [one.cell for one in self.capacities if one.cell.rule == self.rule]
        return sorted({(cell.replicas, cell.bar) for cell in decided})

    def at(self, replicas: int, bar: float, rule: str = "") -> list[Capacity]:
        """The capacities of one table, by the deciding rule or by another."""
        wanted = (replicas, bar, rule or self.rule)
        return [
            one
            for one in self.capacities
            if (one.cell.replicas, one.cell.bar, one.cell.rule) == wanted
        ]

    def compared(self, replicas: int, bar: float, rule: str = "") -> list[Comparison]:
        """Ours beside the best baseline in each scenario of one table."""
        rows = self.at(replicas, bar, rule)
        scenarios = {one.cell.scenario for one in rows}
        return compare(rows, {name: self.bound(name, replicas, bar) for name in scenarios})

    def bound(self, scenario: str, replicas: int, bar: float) -> float:
        """The upper bound; nan where it was not computed."""
        return next(
            (
                one.rate
                for one in self.bounds
                if (one.scenario, one.replicas, one.bar) == (scenario, replicas, bar)
            ),
            float("nan"),
        )


def percent(share: float) -> str:
    """A share as a percentage, with as many digits as it was given."""
    return f"{100 * share:g}%"
