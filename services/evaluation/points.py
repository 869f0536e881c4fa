"""One point: a load at one rate through one system, and what is kept of it. Simulates nothing."""

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
    """What is simulated. `setting` is a label of those that the system has for so many `replicas`;
    `engines` are those that it then has. `rate` is programs per second offered to all of them. The
    run may end once it is known on which side of all `bars` it comes out by `rule`; with `bin_s` a
    timeline is kept. `lasting`: only programs that come to a busy fleet which stays busy count.
    `retry_s`: a client that is refused asks once more after so many seconds; 0: after those that
    the answer names; None: never. `calm_rate`: at which the later half of the programs come; 0: at
    `rate` as the others. `by_request`: requests are counted, not programs as a whole.
    `by_class`: each class is judged by itself; the share is that of the one that keeps least.
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
        """What requests ask for: who judges by deadlines says so. None: as the load has it."""
        if self.rule == Rule.ASKED:
            return None
        return Pacing.DEADLINES if self.rule == Rule.DEADLINES else Pacing.MEAN

    @property
    def load_and_system(self) -> str:
        """What two tasks share that differ only in when they may end."""
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
    """What came in a part of a timeline: requests that arrived in it, by what became of them."""

    from_s: float
    admitted: int
    held: int  # admitted, but after a wait for the decision
    best_effort: int
    refused: int
    kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryCounts:
    """What became of refused requests whose clients ask once more. `first` requests came, `refused`
    of them were refused, `named` of these with a time to wait (p50 and p90 in `named_s`, seconds).
    `again` were asked for anew while others still came, `admitted` of these with a promise.
    """

    first: int
    refused: int
    named: int
    named_s: tuple[float, float]
    again: int
    admitted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What a task came to. `complete`: it was not ended early, so all shares are exact."""

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

    def passes(self, rule: str, bar: float) -> bool | None:
        return self.bounds(rule).passes(bar)

    def answers(self, task: Task) -> bool:
        """Whether it tells all that this task would."""
        if self.task.load_and_system != task.load_and_system:
            return False
        if self.complete or not task.bars:
            return self.complete
        return all(self.passes(task.rule, bar) is not None for bar in task.bars)


def to_line(point: Point) -> str:
    """One line of JSON."""
    return json.dumps(asdict(point), separators=(",", ":"), allow_nan=True)


def from_line(line: str) -> Point:
    """Raises ValueError, KeyError or TypeError for a line that is none."""
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
    """A rate as it is kept: five digits, so that the same search asks the same question twice."""
    return float(f"{rate:.5g}")


def best(points: Sequence[Point], rule: str) -> Point:
    """The one that may attain most."""
    return max(points, key=lambda point: point.bounds(rule).at_most)


def _retries(plain: Mapping[str, Any] | None) -> RetryCounts | None:
    return RetryCounts(**dict(plain) | {"named_s": tuple(plain["named_s"])}) if plain else None


def _class(plain: Mapping[str, Any]) -> ClassTimes:
    times = {name: tuple(plain[name]) for name in ("ttft_s", "tpot_s")}
    return ClassTimes(**dict(plain) | times)
