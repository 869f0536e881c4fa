"""`slos-serve capacity`: how much load each system carries, in each scenario."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from services.evaluation.measure import measure_point
from services.evaluation.mix import read_mix
from services.evaluation.options import CapacityOptions
from services.evaluation.output import write_report
from services.evaluation.parts import Evaluation, systems_of
from services.evaluation.point_store import PointStore
from services.evaluation.report import capacity_tables, settings_table
from services.evaluation.results import RULES, Results
from services.evaluation.scenarios import (
    CLASSES,
    FULL,
    QUICK,
    application_of,
    hardware_for,
    hardware_of,
    is_of_classes,
    scenario_names,
)
from services.evaluation.stage import jobs_of, machine_line, progressing, say
from services.evaluation.too_long import too_long
from services.evaluation.variants import spec_of
from services.evaluation.workers import workers
from shared.errors import ConfigError
from shared.options import load
from shared.simulation.judge import Rule
from shared.tables import for_tables


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError before anything is simulated."""
    options = load(
        CapacityOptions,
        section="capacity",
        argv=argv,
        environ=os.environ,
        prog="slos-serve capacity",
    )
    results = measure(_checked(options))
    show(results, Path(options.out))
    return 0


def measure(options: CapacityOptions) -> Results:
    """Runs all searches for capacity, then measures attainment over load."""
    effort, bar = QUICK if options.quick else FULL, min(options.attainment)
    store = PointStore(Path(options.out), older=options.older)
    scenarios, systems = _scenarios(options, store), systems_of(options.systems)
    results = Results(
        effort=effort.name,
        seed=options.seed,
        machine=machine_line(),
        rule=_rule(options),
        command="slos-serve capacity",
    )
    hardware = options.hardware
    if hardware.endswith((".toml", ".json")):  # others are names of tables
        hardware = store.keep(hardware)
    for scenario in filter(is_of_classes, scenarios):
        for line in too_long(scenario, hardware or hardware_for(scenario), options.seed):
            say(line)
    with workers(jobs_of(options.jobs), measure_point) as pool, progressing() as shown:
        evaluation = Evaluation(
            effort=effort,
            seed=options.seed,
            pool=pool,
            points=store,
            results=results,
            folder=Path(options.out),
            hear=shown.hear,
            show=shown.show,
            hardware=hardware,
        )
        replicas, bars = sorted(set(options.replicas)), sorted(set(options.attainment))
        evaluation.capacity(scenarios, systems, replicas, bars)
        evaluation.curves(scenarios, systems, bar, replicas[0])
    count(results, store)
    return results


def _rule(options: CapacityOptions) -> Rule:
    if options.rule:
        return Rule(options.rule)
    return Rule.ASKED if options.classes else Rule.MEAN


def _scenarios(options: CapacityOptions, store: PointStore) -> Sequence[str]:
    if options.classes:
        read_mix(Path(options.classes))
        return [f"{CLASSES}:{store.keep(options.classes)}"]
    return [application_of(name).name for name in options.scenarios] or scenario_names()


def count(results: Results, store: PointStore) -> None:
    """Notes the number of points in a store and their CPU time."""
    points = list(store)
    results.points = len(points)
    results.measured_s = sum(point.cpu_s for point in points)


def show(results: Results, folder: Path) -> None:
    """Prints tables and the paths of the report files."""
    console = Console()
    wide = for_tables(console)
    for text in (capacity_tables(results), settings_table(results)):
        wide.print(text, markup=False, highlight=False, soft_wrap=True)
    for path in write_report(results, folder):
        console.print(f"written: {path}", markup=False, highlight=False)


def _checked(options: CapacityOptions) -> CapacityOptions:
    """Returns the options if every name is known. Raises ConfigError with the nearest name."""
    for scenario in options.scenarios:
        application_of(scenario)
    for system in options.systems:
        spec_of(system)
    if options.hardware:
        hardware_of(options.hardware)
    if options.classes and options.scenarios:
        raise ConfigError("give --classes FILE or --scenarios, one of them")
    if options.rule and options.rule not in RULES:
        raise ConfigError(f"--rule {options.rule}: allowed is {', '.join(RULES)}")
    if not options.replicas or not options.attainment:
        raise ConfigError("--replicas and --attainment need at least one number each")
    return options
