"""Times the work of a planner in this process, on one core."""

import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.bench.planner_world import NOW_S, World, all_reports, step_table
from services.bench.spread import percentile
from services.planner.admission.pending import PendingRequest
from services.planner.admission.placement import Decision
from services.planner.admission.rounds import decide_round
from services.planner.server.metrics import PlannerMetrics
from services.planner.state.cluster import ClusterState
from shared.clock import MonotonicClock, cpu_time_s
from shared.requests import Explanation, Outcome
from shared.rpc import codec
from shared.rpc import slos_pb2 as pb
from shared.scheduling.former import StepFormer
from shared.scheduling.shares import FREE_BLOCKS

_WARM_UP = 3
_SAMPLES = 10  # of memory
_IN_FLIGHT = 64
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") / 1024
_PROCESS_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Milliseconds of one operation done `count` times.

    `admitted` is the mean number of placements that run. `cpu_p99_ms` is CPU time, without the time
    of other processes on the core.
    """

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_p99_ms: float
    admitted: float = 0.0

    @classmethod
    def of(cls, times: "Times", admitted: int = 0) -> "Taken":
        return cls(
            count=len(times.wall_s),
            p50_ms=1000 * percentile(times.wall_s, 50),
            p99_ms=1000 * percentile(times.wall_s, 99),
            max_ms=1000 * max(times.wall_s),
            cpu_p99_ms=1000 * percentile(times.cpu_s, 99),
            admitted=admitted / len(times.wall_s),
        )


@dataclass(frozen=True, slots=True)
class Times:
    """Wall time and CPU time of each call, in seconds."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)


def time_of(act: Callable[[int], None], rounds: int, limit_s: float) -> Times:
    """Times of `rounds` calls after a warm-up; fewer if `limit_s` is over."""
    now, times = MonotonicClock().now, Times()
    for number in range(_WARM_UP):
        act(-1 - number)
    gc.collect()
    began_s = now()
    for number in range(rounds):
        before_s, cpu_before_s = now(), cpu_time_s()
        act(number)
        times.cpu_s.append(cpu_time_s() - cpu_before_s)
        times.wall_s.append(now() - before_s)
        if now() - began_s > limit_s:
            break
    return times


def decisions(world: World, engines: int, candidates: int, rounds: int, limit_s: float) -> Taken:
    """Times rounds of decisions on one state; none of them is committed."""
    state = world.state(engines)
    asked = {n: world.asked(candidates, n) for n in range(-_WARM_UP, rounds)}
    admitted = [0] * rounds

    def decide(number: int) -> None:
        found = decide_round(asked[number], state, NOW_S)
        admitted[number] = sum(isinstance(one, Decision) and one.placement.runs for one in found)

    times = time_of(decide, rounds, limit_s)
    return Taken.of(times, sum(admitted[: len(times.wall_s)]))


def formed_steps(world: World, rounds: int, limit_s: float) -> Taken:
    """Times the forming of steps from the requests of the first engine."""
    engine = world.description(0)
    former = StepFormer(
        step_table(),
        max_tokens=engine.max_step_tokens,
        block_tokens=engine.block_size_tokens,
        max_resident=engine.max_running_requests,
    )
    for row in world.rows():
        former.add(row)
    former.limits[FREE_BLOCKS] = world.report(0).free_kv_blocks

    def form(number: int) -> None:
        former.form(NOW_S + 1e-4 * (number % 10))

    return Taken.of(time_of(form, rounds, limit_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """Cost of reading reports from bytes into the state and the metrics, without gRPC."""

    engines: int
    reports_per_s: int
    report_bytes: int
    per_report_s: float

    @property
    def share_of_a_core(self) -> float:
        return self.engines * self.reports_per_s * self.per_report_s


def intake(world: World, engines: int, reports_per_s: int, limit_s: float) -> Intake:
    """Times one second of reports, or as many as `limit_s` allows."""
    state, metrics = world.state(engines), PlannerMetrics()
    messages = [
        pb.EngineMessage(
            reports=pb.StepReports(reports=[codec.report_to_wire(one)])
        ).SerializeToString()
        for one in all_reports(world, engines)
    ]

    def take_in(number: int) -> None:
        at_s = NOW_S + number / reports_per_s
        for data, engine in zip(messages, state.engines.values(), strict=True):
            message = pb.EngineMessage.FromString(data)
            reports = [codec.report_from_wire(one) for one in message.reports.reports]
            state.observe(engine, reports, at_s)
            metrics.reported(engine, reports)

    cpu_s = time_of(take_in, reports_per_s, limit_s).cpu_s
    return Intake(
        engines=engines,
        reports_per_s=reports_per_s,
        report_bytes=len(messages[0]),
        per_report_s=sum(cpu_s) / len(cpu_s) / engines,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident memory of this process in MiB: before, and after each tenth of the decisions."""

    decisions: int
    before_mib: float
    after_mib: tuple[float, ...]


def memory(world: World, decisions_made: int) -> Memory:
    """Measures memory while requests arrive, are decided, run and end, on four engines."""
    state = world.state(4)
    reports = all_reports(world, 4)
    lives = itertools.count()
    under_way: list[Outcome] = []

    def live() -> None:
        number = next(lives)
        now = NOW_S + 0.01 * number
        under_way.extend(_decide(state, world.asked(1, number), now))
        if len(under_way) > _IN_FLIGHT:
            state.settle(under_way.pop(0), now)
        for engine, report in zip(state.engines.values(), reports, strict=True):
            if number % _IN_FLIGHT == 0:
                state.observe(engine, [report], now)

    for _ in range(max(1, decisions_made // _SAMPLES)):  # warm-up: bounded records are full by then
        live()
    before, after = _resident_mib(), []
    for _ in range(_SAMPLES):
        for _ in range(decisions_made // _SAMPLES):
            live()
        after.append(_resident_mib())
    return Memory(decisions=decisions_made, before_mib=before, after_mib=tuple(after))


def _decide(state: ClusterState, asked: list[PendingRequest], now: float) -> list[Outcome]:
    ended = []
    for one, decision in zip(asked, decide_round(asked, state, now), strict=True):
        if not isinstance(decision, Decision):
            continue
        placement = decision.placement
        explanation = Explanation(
            query=one.query, placement=placement, decided_at_epoch_s=0.0, ways=decision.ways
        )
        state.commit(explanation, decision.chosen, now)
        ended.append(
            Outcome(
                decision_id=placement.decision_id,
                request_id=one.query.request_id,
                finished="stop",
                output_tokens=100,
            )
        )
    return ended


def _resident_mib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * _PAGE_KIB / 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """Seconds of a new process to load the code, to prepare it, for a first and a second decision.

    Preparing compiles the code, or loads it compiled from disk, as the planner does at its start.
    """

    load_s: float
    prepare_s: float
    first_s: float
    second_s: float


def first_decisions() -> dict[str, First]:
    """Times of a new process without compiled code on disk (`cold`) and with it (`warm`)."""
    with tempfile.TemporaryDirectory(prefix="slos-bench-") as folder:
        cache = {"NUMBA_CACHE_DIR": folder}
        return {
            name: First(**_said_by("services.bench.planner_first", environ=cache))
            for name in ("cold", "warm")
        }


def scheduling(running: Sequence[int], steps: int) -> list[dict[str, Any]]:
    """Microseconds of vLLM's scheduler and of ours, a step in turn, all requests decoding."""
    said: list[dict[str, Any]] = _said_by("services.bench.planner_schedule", steps, *running)
    return said


def _said_by(module: str, *words: int, environ: Mapping[str, str] | None = None) -> Any:
    """The JSON value that a process of ours prints in its last line."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        env={**os.environ, **(environ or {})},
        check=True,
        capture_output=True,
        text=True,
        timeout=_PROCESS_LIMIT_S,
    )
    return json.loads(done.stdout.splitlines()[-1])
