"""Renders the result of `bench planner` as a JSON object, or as tables and sentences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from services.bench.machine import Machine
from services.bench.planner_measure import First, Intake, Memory, Taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sort of call. `candidates` requests are decided together; 0: no decision."""

    engines: int
    running: int
    candidates: int
    taken: Taken

    def as_json(self) -> dict[str, Any]:
        taken = self.taken
        return {
            "engines": self.engines,
            "running": self.running,
            "candidates": self.candidates,
            "count": taken.count,
            "p50_ms": round(taken.p50_ms, 4),
            "p99_ms": round(taken.p99_ms, 4),
            "max_ms": round(taken.max_ms, 4),
            "cpu_p99_ms": round(taken.cpu_p99_ms, 4),
            "admitted": round(taken.admitted, 2),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run. `decisions` are about one engine, `fleets` about several."""

    machine: Machine
    decisions: Sequence[Row]
    fleets: Sequence[Row]
    steps: Sequence[Row]
    intake: Intake
    memory: Memory | None
    first: Mapping[str, First]
    scheduling: Sequence[Mapping[str, Any]]  # as `scheduler_cost.SchedulerCost.as_json` says


def as_json(measured: Measured) -> dict[str, Any]:
    taken_in = measured.intake
    return {
        "bench": "planner",
        "machine": measured.machine.as_json(),
        "decisions": [row.as_json() for row in measured.decisions],
        "fleets": [row.as_json() for row in measured.fleets],
        "steps": [row.as_json() for row in measured.steps],
        "reports": {
            "engines": taken_in.engines,
            "per_second_each": taken_in.reports_per_s,
            "bytes": taken_in.report_bytes,
            "us_each": round(1e6 * taken_in.per_report_s, 2),
            "share_of_a_core": round(taken_in.share_of_a_core, 3),
        },
        "memory": None if measured.memory is None else asdict(measured.memory),
        "first_decision": {name: asdict(first) for name, first in measured.first.items()},
        "scheduling": list(measured.scheduling),
    }


def make_tables(measured: Measured) -> Iterator[Table]:
    yield _table("Decisions", [*measured.decisions, *measured.fleets])
    yield _table("Steps formed", measured.steps)
    if measured.scheduling:
        yield _scheduling(measured.scheduling)


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title)
    decided = any(row.candidates for row in rows)
    names = ("engines", "running each", "decided together", "admitted")
    for name in (
        *(names if decided else names[1:2]),
        "times",
        "p50 ms",
        "p99 ms",
        "max ms",
        "CPU p99",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        taken = row.taken
        decision = (
            str(row.engines),
            str(row.running),
            str(row.candidates),
            f"{taken.admitted:.1f}",
        )
        table.add_row(
            *(decision if decided else decision[1:2]),
            str(taken.count),
            f"{taken.p50_ms:.3f}",
            f"{taken.p99_ms:.3f}",
            f"{taken.max_ms:.3f}",
            f"{taken.cpu_p99_ms:.3f}",
        )
    return table


def _scheduling(costs: Sequence[Mapping[str, Any]]) -> Table:
    """vLLM's scheduler and ours by number of requests, with and without promises."""
    table = Table(title="Scheduling inside vLLM, medians in us")
    for name in ("scheduler", "running", "promises", "schedule()", "update_from_output()"):
        table.add_column(name, justify="right")
    for cost in costs:
        table.add_row(
            str(cost["scheduler"]),
            str(cost["running"]),
            "yes" if cost["with_slo"] else "no",
            f"{cost['schedule_us']:.0f}",
            f"{cost['update_us']:.0f}",
        )
    return table


def sentences(measured: Measured) -> Iterator[str]:
    taken_in, memory = measured.intake, measured.memory
    yield (
        f"Reports of {taken_in.engines} engines, {taken_in.reports_per_s} a second each, "
        f"{taken_in.report_bytes} bytes: {1e6 * taken_in.per_report_s:.0f} us each, "
        f"{100 * taken_in.share_of_a_core:.0f} % of a core."
    )
    if memory:
        yield (
            f"Memory over {memory.decisions} decisions: {memory.before_mib:.1f} MiB before, "
            f"{memory.after_mib[-1]:.1f} MiB after."
        )
    for name, first in measured.first.items():
        yield (
            f"A new process, {name}: loads in {first.load_s:.2f} s, is prepared in "
            f"{first.prepare_s:.2f} s, decides first in {1000 * first.first_s:.1f} ms, then in "
            f"{1000 * first.second_s:.1f} ms."
        )
    yield measured.machine.line()
