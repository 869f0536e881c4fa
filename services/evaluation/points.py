"""One point: a load at one rate through one system, and the results that are stored."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from services.evaluation.attainment import Bounds
from shared.requests import Pacing
from shared.simulation.judge import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is simulated.

    `setting` is a label among those that the system has for `replicas`; it has `engines` engines.
    `rate` is programs per second offered to all of them. The run may end early once the outcome by
    `rule` is certain for all `bars`. `bin_s`: width of a timeline's parts; 0: none. `lasting`: only
    programs in the middle of the load count, for which the fleet is busy before and after.
    `retry_s`: a refused client retries once after so many seconds; 0: after those that the answer
    names; None: never. `calm_rate`: the rate of the later half of the programs; 0: `rate`.
    `by_request`: requests are counted, not whole programs. `by_class`: the share is that of the
    class that keeps least.
    """

    scenario: str
    hardware: str
    system: str
    setting: str
    replicas: int
    engines: int
    rate: float
    programs: int
    seed: int
    rule: str = Rule.MEAN.value
    bars: tuple[float, ...] = (0.9, 0.98)
    bin_s: float = 0.0
    lasting: bool = False
    retry_s: float | None = None
    calm_rate: float = 0.0
    by_request: bool = False
    by_class: bool = False

    @property
    def pacing(self) -> Pacing | None:
        """The pacing of all requests: that of the rule. None: each request keeps its own."""
        if self.rule == Rule.ASKED:
            return None
        return Pacing.DEADLINES if self.rule == Rule.DEADLINES else Pacing.MEAN

    @property
    def load_and_system(self) -> str:
        """A digest that two tasks share if they differ only in when they may end."""
        asked = self.rule if self.pacing is not Pacing.MEAN else ""
        plain = asdict(replace(self, rule=asked, bars=()))
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTimes:
    """One class: requests (each call of a program), shares, and times in seconds, p50 and p99."""

    name: str
    requests: int
    admitted: int
    best_effort: int
    refused: int
    promises_kept: int  # of the admitted
    attained: Mapping[str, float]  # by rule
    ttft_s: tuple[float, float]
    tpot_s: tuple[float, float]
    ttft_share: float  # p99 as a share of the target
    tpot_share: float
    causes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The requests that arrived in a part of a timeline, by what became of them."""

    from_s: float
    admitted: int
    held: int  # admitted, but after a wait for the decision
    best_effort: int
    refused: int
    kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryCounts:
    """Counts of refused requests and of their one retry. `first` requests came, `refused` of them
    were refused, `named` of these with a time to wait (p50 and p90 in `named_s`, seconds). `again`
    were retried while others still arrived, `admitted` of these with a promise.
    """

    first: int
    refused: int
    named: int
    named_s: tuple[float, float]
    again: int
    admitted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The result of a task. `complete`: it did not end early, so all shares are exact."""

    task: Task
    version: str
    complete: bool
    attained: Mapping[str, tuple[float, float]]  # by rule, at least and at most
    classes: tuple[ClassTimes, ...]
    batches: tuple[int, ...]  # steps between two of observed.BATCH_EDGES each
    decision_ms: tuple[float, float, float]  # rounds p50 and p99, mean for each request
    ended_s: float  # virtual
    cpu_s: float
    steps: int
    timeline: tuple[Bin, ...] = field(default=())
    retries: RetryCounts | None = None

    def bounds(self, rule: str) -> Bounds:
        low, high = self.attained[rule]
        return Bounds(at_least=low, at_most=high)

    @property
    def played(self) -> float:
        """How much of the load's time the run lasted, as a share: comparable between settings with
        other numbers of engines and programs.
        """
        return self.ended_s * self.task.rate / self.task.programs

    def passes(self, rule: str, bar: float) -> bool | None:
        return self.bounds(rule).passes(bar)

    def answers(self, task: Task) -> bool:
        """Whether the point has all that this task would find."""
        if self.task.load_and_system != task.load_and_system:
            return False
        if self.complete or not task.bars:
            return self.complete
        return all(self.passes(task.rule, bar) is not None for bar in task.bars)


def to_line(point: Point) -> str:
    """One line of JSON."""
    return json.dumps(asdict(point), separators=(",", ":"), allow_nan=True)


def from_line(line: str) -> Point:
    """Parses a line. Raises ValueError, KeyError or TypeError where it is no point."""
    plain: dict[str, Any] = json.loads(line)
    if not isinstance(plain, dict) or set(plain) != {one.name for one in fields(Point)}:
        raise ValueError("no point")
    return Point(
        **plain
        | {
            "task": Task(**plain["task"] | {"bars": tuple(plain["task"]["bars"])}),
            "attained": {rule: (low, high) for rule, (low, high) in plain["attained"].items()},
            "classes": tuple(_class(one) for one in plain["classes"]),
            "batches": tuple(plain["batches"]),
            "decision_ms": tuple(plain["decision_ms"]),
            "timeline": tuple(Bin(**one) for one in plain["timeline"]),
            "retries": _retries(plain["retries"]),
        }
    )


def rounded(rate: float) -> float:
    """A rate with five digits, so that the same search repeats the same tasks."""
    return float(f"{rate:.5g}")


def best(points: Sequence[Point], rule: str) -> Point:
    """The point with the greatest possible share."""
    return max(points, key=lambda point: point.bounds(rule).at_most)


def _retries(plain: Mapping[str, Any] | None) -> RetryCounts | None:
    return RetryCounts(**dict(plain) | {"named_s": tuple(plain["named_s"])}) if plain else None


def _class(plain: Mapping[str, Any]) -> ClassTimes:
    times = {name: tuple(plain[name]) for name in ("ttft_s", "tpot_s")}
    return ClassTimes(**dict(plain) | times)
