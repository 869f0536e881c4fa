"""`slos-serve simulate`: one load at one rate, through one system or several."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.evaluation.drive import drive
from services.evaluation.files import json_of
from services.evaluation.fleets import Fleet, fleet_of, parse_fleet
from services.evaluation.measure import measure_point
from services.evaluation.options import SimulateOptions
from services.evaluation.points import Point, Task, best, rounded
from services.evaluation.points_in_memory import PointsInMemory
from services.evaluation.results import RULES
from services.evaluation.scenarios import (
    CLASSES,
    TRACE,
    application_of,
    hardware_for,
    least_programs,
    load_of,
)
from services.evaluation.settings import TuningCase
from services.evaluation.stage import jobs_of, progressing, say
from services.evaluation.study import fixed
from services.evaluation.systems import SYSTEMS
from services.evaluation.too_long import too_long
from services.evaluation.tuning_cases import tuning_case_of
from services.evaluation.variants import settings_of, spec_of
from services.evaluation.workers import workers
from shared.errors import ConfigError
from shared.options import load
from shared.simulation.judge import Rule
from shared.tables import for_tables
from shared.workloads.calls import rate as rate_of

_SECONDS: Final = 120.0
_ALL: Final = "all"


class _WrongFleetError(ConfigError):
    """The system has no setting with exactly this fleet."""


def main(argv: Sequence[str]) -> int:
    """`slos-serve simulate SCENARIO ...`. Raises ConfigError before anything is simulated."""
    options = load(
        SimulateOptions,
        section="simulate",
        argv=_named(argv),
        environ=os.environ,
        prog="slos-serve simulate SCENARIO",
    )
    points = simulate(options)
    if options.json:
        print(json_of([asdict(point) for point in points]))
    else:
        _print(points)
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """The load that goes through every system."""

    scenario: str
    hardware: str
    rate: float
    programs: int


def simulate(options: SimulateOptions) -> list[Point]:
    """The point of each system in its best setting; with `all`, systems that cannot run on the
    fleet are left out. Raises ConfigError before anything is simulated.
    """
    asked, tasks = _asked(options), dict[str, list[Task]]()
    for system in _systems(options):
        try:
            tasks[system] = _tasks(options, asked, system)
        except _WrongFleetError as error:
            if options.system != (_ALL,):
                raise
            say(f"left out: {error}")
    if not tasks:
        raise _WrongFleetError(f"--fleet {options.fleet}: no system can run on it")
    for line in too_long(asked.scenario, asked.hardware, options.seed):
        say(line)
    searches = {system: fixed(own) for system, own in tasks.items()}
    with workers(jobs_of(options.jobs), measure_point) as pool, progressing() as shown:
        found = drive(searches, pool, PointsInMemory(), shown.hear("simulate"))
    return [best(one.points, Rule.ASKED) for one in found.values()]


def _named(argv: Sequence[str]) -> list[str]:
    """The arguments, in which the scenario may stand first without its flag."""
    if argv and not argv[0].startswith("-"):
        return ["--scenario", *argv]
    return list(argv)


def _systems(options: SimulateOptions) -> tuple[str, ...]:
    names = tuple(SYSTEMS) if options.system == (_ALL,) else options.system
    if not names:
        raise ConfigError(f"--system: name one or more of {', '.join(SYSTEMS)}, or all")
    for name in names:
        spec_of(name)
    return names


def _tasks(options: SimulateOptions, asked: _Asked, system: str) -> list[Task]:
    fleet = parse_fleet(options.fleet)
    case = tuning_case_of(asked.scenario, asked.hardware, fleet.engines, options.seed)
    return [
        Task(
            scenario=asked.scenario,
            hardware=asked.hardware,
            system=system,
            setting=label,
            replicas=fleet.engines,
            engines=fleet.engines,
            rate=rounded(asked.rate),
            programs=asked.programs,
            seed=options.seed,
            rule=Rule.ASKED.value,
            bars=(),
        )
        for label in _labels(options, system, case, fleet)
    ]


def _asked(options: SimulateOptions) -> _Asked:
    scenario = _scenario(options)
    if options.trace and not options.rate:
        rate, programs = _as_in_trace(options, scenario)
    else:
        rate, programs = options.rate, _programs(options, scenario)
    hardware = options.hardware or hardware_for(scenario)
    return _Asked(scenario=scenario, hardware=hardware, rate=rate, programs=programs)


def _programs(options: SimulateOptions, scenario: str) -> int:
    least = least_programs(scenario)
    if 0 < options.requests < least:
        raise ConfigError(f"--requests {options.requests}: this load takes at least {least}")
    return options.requests or max(least, round((options.seconds or _SECONDS) * options.rate))


def _as_in_trace(options: SimulateOptions, scenario: str) -> tuple[float, int]:
    """The rate and the number of programs of the chosen part of the trace."""
    load = load_of(scenario, rate=0.0, programs=options.requests, seed=options.seed)
    if not options.requests:
        until_s = options.seconds or _SECONDS
        load = tuple(program for program in load if program.arrives_s <= until_s)
    rate = rate_of(load)
    if not rate:
        raise ConfigError(
            f"--trace {options.trace}: fewer than two requests in that part of it, or all at once; "
            "take more with --seconds or --requests, or give a --rate"
        )
    return rate, len(load)


def _scenario(options: SimulateOptions) -> str:
    if sum(map(bool, (options.scenario, options.trace, options.classes))) != 1:
        raise ConfigError("name one load: SCENARIO, --trace FILE or --classes FILE")
    if options.trace:
        if not Path(options.trace).is_file():
            raise ConfigError(f"--trace {options.trace}: there is no such file")
        return f"{TRACE}:{application_of(options.targets).name}:{options.trace}"
    if not options.rate:
        raise ConfigError("--rate R must be given: programs per second offered to the fleet")
    if options.classes:
        return f"{CLASSES}:{options.classes}"
    return application_of(options.scenario).name


def _labels(options: SimulateOptions, system: str, case: TuningCase, fleet: Fleet) -> list[str]:
    """Labels of settings with exactly the fleet asked for; `4` leaves the roles to the system."""
    known = settings_of(system, case)
    free = "=" not in options.fleet
    if options.setting:
        if options.setting not in known:
            raise ConfigError(f"{system} has no such setting; there are: {'; '.join(known)}")
        own = fleet_of(known[options.setting].roles)
        if not _fits(own, fleet, free=free):
            raise _WrongFleetError(f"--setting {options.setting} is one of --fleet {own}")
        return [options.setting]
    labels = [
        label
        for label, setting in known.items()
        if _fits(fleet_of(setting.roles), fleet, free=free)
        and (options.drafts or not setting.drafts)
    ]
    if not labels:
        fleets = sorted({str(fleet_of(one.roles)) for one in known.values()})
        raise _WrongFleetError(
            f"{system} cannot run on --fleet {options.fleet}; it is set up for {'; '.join(fleets)}"
        )
    return labels


def _fits(own: Fleet, asked: Fleet, *, free: bool) -> bool:
    return own.engines == asked.engines if free else own == asked


def _print(points: Iterable[Point]) -> None:
    console = Console()
    wide = for_tables(console)
    for point in points:
        wide.print(_table(point))
        wide.print(_sentence(point), markup=False, highlight=False)


def _table(point: Point) -> Table:
    task = point.task
    table = Table(title=f"{task.system}: {task.setting}; {task.engines} engines, {task.rate:.3g}/s")
    table.add_column("class")
    for name in ("requests", "admitted", "kept of it", "best effort", "refused", *RULES):
        table.add_column(name, justify="right")
    for name in ("TTFT p50 ms", "p99", "of target", "TPOT p50 ms", "p99", "of target"):
        table.add_column(name, justify="right")
    table.add_column("missed by")
    for one in point.classes:
        table.add_row(
            escape(one.name),
            str(one.requests),
            str(one.admitted),
            f"{one.promises_kept / one.admitted:.1%}" if one.admitted else "",
            str(one.best_effort),
            str(one.refused),
            *(f"{one.attained[rule]:.1%}" for rule in RULES),
            *(f"{1e3 * value:.0f}" for value in one.ttft_s),
            f"{one.ttft_share:.2f}",
            *(f"{1e3 * value:.1f}" for value in one.tpot_s),
            f"{one.tpot_share:.2f}",
            ", ".join(f"{cause} {count}" for cause, count in one.causes.items()),
        )
    return table


def _sentence(point: Point) -> str:
    shares = ", ".join(f"{point.attained[rule][0]:.1%} ({rule})" for rule in (Rule.ASKED, *RULES))
    p50, p99, _ = point.decision_ms
    return (
        f"Programs with all of their requests in time: {shares}. {point.ended_s:.0f} s of "
        f"{point.task.hardware} simulated in {point.cpu_s:.1f} s of a core, {point.steps} steps; "
        f"a round of decisions took {p50:.2f} ms (p50), {p99:.2f} ms (p99).\n"
    )
