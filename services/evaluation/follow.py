"""Measures how many requests a fleet keeps that follows the planner's desired engines, over a load
that changes in phases: `python -m services.evaluation.follow` prints a table for each case.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import numpy as np
from rich.console import Console
from rich.table import Table

from services.evaluation.autoscaled import AutoscaledRun, Moment, Orchestrator
from services.evaluation.files import json_of
from services.evaluation.fleets import Fleet, fleet_of, make_engines, parse_fleet
from services.evaluation.options import FollowOptions
from services.evaluation.planned import Planned, Settings
from services.evaluation.scenarios import drain_s, hardware_for, hardware_of, load_on
from services.planner.scaling.fleet_size import FleetSize
from services.planner.scaling.numbers import ScalingNumbers
from shared.entry import exit_status
from shared.hardware.profile import profiled
from shared.options import load as load_options
from shared.simulation.judge import Rule, kept
from shared.simulation.record import Conditions, Record
from shared.simulation.request_metrics import ARRIVES
from shared.tables import for_tables
from shared.workloads.calls import Load


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A phase of the load, and the shares of its requests kept with and without a fleet that
    follows.

    `settled` is the share kept in the second half of the phase, when engines have had time to
    start. `fewest` and `most` are the smallest and the largest fleet that served in the phase;
    `engine_s` is how many engines served or started, summed over time.
    """

    rate: float
    requests: int
    kept: float
    settled: float
    kept_by_first_fleet: float
    fewest: str
    most: str
    ended_with: str
    engine_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """One case. `ups` and `downs` count how often the desired engines of a role rose and fell."""

    scenario: str
    hardware: str
    start_s: float
    phases: tuple[Phase, ...]
    ups: int
    downs: int
    moments: tuple[Moment, ...]


def main(argv: Sequence[str]) -> int:
    options = load_options(
        FollowOptions,
        section="follow",
        argv=argv,
        environ=os.environ,
        prog="python -m services.evaluation.follow",
    )
    followed = follow(options)
    if options.json:
        print(json_of(asdict(followed)))
    else:
        _print(followed)
    return 0


def follow(options: FollowOptions) -> Followed:
    """Runs the load twice: over a fleet that follows, and over the fixed fleet of its start."""
    load = phased(options)
    fleet = parse_fleet(options.fleet)
    following = _run(load, fleet, options, follows=True)
    fixed = _run(load, fleet, options, follows=False)
    phases = tuple(_phases(options, following, fixed))
    ups, downs = _changes(following[1])
    return Followed(
        scenario=options.scenario,
        hardware=options.hardware or hardware_for(options.scenario),
        start_s=options.start_s,
        phases=phases,
        ups=ups,
        downs=downs,
        moments=tuple(following[1]),
    )


def phased(options: FollowOptions) -> Load:
    """The scenario at each rate in turn, with other programs in every phase."""
    hardware = hardware_of(options.hardware or hardware_for(options.scenario))
    whole: list[Load] = []
    for number, rate in enumerate(options.rates):
        programs = round(rate * options.phase_s)
        part = load_on(
            options.scenario, hardware, rate=rate, programs=programs, seed=options.seed + number
        )
        whole.append(
            tuple(
                replace(
                    one,
                    program_id=f"{one.program_id}-{number}",
                    arrives_s=one.arrives_s + number * options.phase_s,
                )
                for one in part
            )
        )
    return tuple(one for part in whole for one in part)


def _run(
    load: Load, fleet: Fleet, options: FollowOptions, *, follows: bool
) -> tuple[Record, list[Moment]]:
    hardware = hardware_of(options.hardware or hardware_for(options.scenario))
    most = Fleet(prefill=options.most if fleet.prefill else 0, decode=options.most)
    engines = make_engines(most.roles, hardware, profiled(hardware), seed=options.seed)
    first, counts = [], dict.fromkeys(fleet_of(most.roles).roles, 0)
    for engine in engines:
        counts[engine.role] += 1
        if counts[engine.role] <= sum(role is engine.role for role in fleet.roles):
            first.append(engine)
    run = AutoscaledRun(
        load,
        engines,
        FleetSize(prefill=fleet.prefill, decode=fleet.decode),
        ScalingNumbers(hold_s=options.hold_s, window_s=options.window_s),
        Orchestrator(start_s=options.start_s, follows=follows),
        Conditions(drain_s=drain_s(load, hardware)),
        Planned.learning(Settings(speculation=options.speculation), first),
    )
    return run.record(), run.moments


def _phases(
    options: FollowOptions,
    following: tuple[Record, list[Moment]],
    fixed: tuple[Record, list[Moment]],
) -> Iterator[Phase]:
    (record, moments), (first, _) = following, fixed
    good, good_fixed = kept(record.metrics, Rule.ASKED), kept(first.metrics, Rule.ASKED)
    for number, rate in enumerate(options.rates):
        start_s, end_s = number * options.phase_s, (number + 1) * options.phase_s
        arrives = record.metrics[:, ARRIVES]
        here = (arrives >= start_s) & (arrives < end_s)
        late = here & (arrives >= (start_s + end_s) / 2)
        there = (first.metrics[:, ARRIVES] >= start_s) & (first.metrics[:, ARRIVES] < end_s)
        then = [one for one in moments if start_s < one.at_s <= end_s]
        sizes = sorted((one.serving.engines, str(one.serving)) for one in then)
        yield Phase(
            rate=rate,
            requests=int(here.sum()),
            kept=_share(good[here]),
            settled=_share(good[late]),
            kept_by_first_fleet=_share(good_fixed[there]),
            fewest=sizes[0][1],
            most=sizes[-1][1],
            ended_with=str(then[-1].serving),
            engine_s=sum(
                (one.serving.engines + one.starting.engines) * _spacing_s(moments) for one in then
            ),
        )


def _share(good: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> float:
    return float(good.mean()) if len(good) else 1.0


def _spacing_s(moments: Sequence[Moment]) -> float:
    return moments[1].at_s - moments[0].at_s if len(moments) > 1 else 0.0


def _changes(moments: Sequence[Moment]) -> tuple[int, int]:
    ups = downs = 0
    for before, after in pairwise(moments):
        for one, other in (
            (before.desired.prefill, after.desired.prefill),
            (before.desired.decode, after.desired.decode),
        ):
            ups += other > one
            downs += other < one
    return ups, downs


def _print(followed: Followed) -> None:
    console = Console()
    wide = for_tables(console)
    table = Table(
        title=f"{followed.scenario} on {followed.hardware}, engines start in "
        f"{followed.start_s:g} s; desired engines went up {followed.ups} times, down "
        f"{followed.downs} times"
    )
    for name in ("rate /s", "requests", "kept", "second half", "kept by first fleet"):
        table.add_column(name, justify="right")
    for name in ("fewest", "most", "at the end"):
        table.add_column(name)
    for one in followed.phases:
        table.add_row(
            f"{one.rate:g}",
            str(one.requests),
            *(f"{share:.1%}" for share in (one.kept, one.settled, one.kept_by_first_fleet)),
            _short(one.fewest),
            _short(one.most),
            _short(one.ended_with),
        )
    wide.print(table)


def _short(fleet: str) -> str:
    return fleet.replace("prefill=", "").replace(",decode=", " + ")


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program="services.evaluation.follow"))
