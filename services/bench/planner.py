"""`slos-serve bench planner`: what decisions, steps and reports cost."""

import json
import os
from collections.abc import Sequence

from rich.console import Console

from services.bench.machine import Machine
from services.bench.planner_measure import (
    decisions,
    first_decisions,
    formed_steps,
    intake,
    memory,
    scheduling,
)
from services.bench.planner_options import PlannerBenchOptions
from services.bench.planner_report import Measured, Row, as_json, make_tables, sentences
from services.bench.planner_world import World
from shared.options import load
from shared.tables import for_tables

_STEPS_PER_ROUND = 10


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError; prints tables, or one JSON object."""
    options = load(
        PlannerBenchOptions,
        section="bench_planner",
        argv=argv,
        environ=os.environ,
        prog="slos-serve bench planner",
    )
    measured = measure(options)
    if options.json:
        print(json.dumps(as_json(measured)))
    else:
        _print(measured)
    return 0


def measure(options: PlannerBenchOptions) -> Measured:
    """Runs all measurements; memory first, while the process is small."""
    machine, fleet = Machine.read(), World(running=options.fleet_running)
    return Measured(
        machine=machine,
        memory=memory(World(running=8), options.memory) if options.memory else None,
        decisions=[
            _decided(World(running=running), 1, candidates, options)
            for running in options.running
            for candidates in options.candidates
        ],
        fleets=[
            _decided(fleet, engines, candidates, options)
            for engines in options.engines
            for candidates in options.fleet_candidates
        ],
        steps=[_formed(World(running=running), options) for running in options.formed],
        intake=intake(fleet, options.reporting_engines, options.reports_per_s, options.limit_s),
        first=first_decisions() if options.first else {},
        scheduling=(
            scheduling(options.scheduled, options.scheduled_steps)
            if options.scheduled_steps
            else []
        ),
    )


def _decided(world: World, engines: int, candidates: int, options: PlannerBenchOptions) -> Row:
    taken = decisions(world, engines, candidates, options.rounds, options.limit_s)
    return Row(engines=engines, running=world.running, candidates=candidates, taken=taken)


def _formed(world: World, options: PlannerBenchOptions) -> Row:
    taken = formed_steps(world, _STEPS_PER_ROUND * options.rounds, options.limit_s)
    return Row(engines=1, running=world.running, candidates=0, taken=taken)


def _print(measured: Measured) -> None:
    console = Console()
    wide = for_tables(console)
    for table in make_tables(measured):
        wide.print(table)
    for sentence in sentences(measured):
        console.print(sentence, highlight=False, soft_wrap=True)
