"""`slos-serve plan`: finds the smallest fleet, and its split, for your own classes and rate."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.evaluation.drive import drive
from services.evaluation.files import json_of
from services.evaluation.measure import measure_point
from services.evaluation.mix import read_mix
from services.evaluation.options import PlanOptions
from services.evaluation.points import ClassTimes, Point, Task, rounded
from services.evaluation.points_in_memory import PointsInMemory
from services.evaluation.results import percent
from services.evaluation.scenarios import CLASSES
from services.evaluation.sizing import Sized, Sizing, smallest
from services.evaluation.stage import jobs_of, progressing, say
from services.evaluation.systems import OURS
from services.evaluation.too_long import too_long
from services.evaluation.tuning_cases import tuning_case_of
from services.evaluation.variants import settings_of
from services.evaluation.workers import workers
from shared.errors import ConfigError
from shared.options import load
from shared.simulation.judge import Rule
from shared.tables import for_tables

_LEAST_PROGRAMS = 200
_LEAST_OF_CLASS = 40  # programs: each class is judged by itself, and one of forty is 2.5 %
_MOST_PROGRAMS = 4000  # the most that a rare class may require
_RULES: Final = (Rule.ASKED, Rule.WINDOWS, Rule.DEADLINES)


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError before anything is simulated."""
    options = load(
        PlanOptions, section="plan", argv=argv, environ=os.environ, prog="slos-serve plan"
    )
    if not options.classes:
        raise ConfigError("--classes FILE must be given: lengths, targets and shares of classes")
    if not options.rate:
        raise ConfigError("--rate R must be given: requests per second of all classes together")
    read_mix(Path(options.classes))
    sized = plan(options)
    if options.json:
        print(json_of(asdict(sized)))
    else:
        _print(sized, options)
    return 0 if sized.engines else 1


def plan(options: PlanOptions) -> Sized:
    """Simulates fleets of different sizes and splits. Raises ConfigError before that."""
    for line in too_long(_scenario(options), options.hardware, options.seed):
        say(line)
    with workers(jobs_of(options.jobs), measure_point) as pool, progressing() as shown:
        return drive({"": _sizing(options)}, pool, PointsInMemory(), shown.hear("plan"))[""]


def _sizing(options: PlanOptions) -> Sizing:
    scenario = _scenario(options)
    programs = programs_of(options)

    def task_of(size: int, label: str) -> Task:
        return Task(
            scenario=scenario,
            hardware=options.hardware,
            system=OURS,
            setting=label,
            replicas=size,
            engines=size,
            rate=rounded(options.rate),
            programs=programs,
            seed=options.seed,
            rule=Rule.ASKED.value,
            bars=(options.attainment,),
            by_class=True,
        )

    return smallest(
        lambda size: fleets(size, options), task_of, bar=options.attainment, most=options.most
    )


def programs_of(options: PlanOptions) -> int:
    """The programs that arrive in the simulated time, but at least enough of the rarest class."""
    shares = [kind.share for kind in read_mix(Path(options.classes)).kinds]
    rare = min(_MOST_PROGRAMS, math.ceil(_LEAST_OF_CLASS * sum(shares) / min(shares)))
    return max(_LEAST_PROGRAMS, rare, round(options.seconds * options.rate))


def fleets(size: int, options: PlanOptions) -> list[str]:
    """Labels of the settings with exactly `size` engines."""
    case = tuning_case_of(_scenario(options), options.hardware, size, options.seed)
    return [label for label, one in settings_of(OURS, case).items() if len(one.roles) == size]


def _scenario(options: PlanOptions) -> str:
    return f"{CLASSES}:{options.classes}"


def _print(sized: Sized, options: PlanOptions) -> None:
    console = Console()
    wide = for_tables(console)
    wide.print(_table(sized.choices))
    for line in sentences(sized, options):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(points: Sequence[Point]) -> Table:
    table = Table(title="Ways to split the smallest fleet, the best first")
    table.add_column("setting")
    table.add_column("class")
    for name in ("attained", *_RULES[1:], "p99 TTFT / target", "p99 TPOT / target"):
        table.add_column(name, justify="right")
    table.add_column("missed by")
    for point in points:
        for number, one in enumerate(_of_classes(point)):
            table.add_row(
                "" if number else point.task.setting,
                escape(one.name),
                *(f"{one.attained[rule]:.1%}" for rule in _RULES),
                f"{one.ttft_share:.2f}",
                f"{one.tpot_share:.2f}",
                ", ".join(f"{cause} {count}" for cause, count in one.causes.items()),
            )
    return table


def _of_classes(point: Point) -> Sequence[ClassTimes]:
    """Each class; the whole load where it has only one."""
    return point.classes[1:] or point.classes


def binding_class(point: Point) -> ClassTimes:
    """The class that keeps least of its requests."""
    return min(_of_classes(point), key=lambda one: one.attained[Rule.ASKED])


def sentences(sized: Sized, options: PlanOptions) -> Iterator[str]:
    """The fleet to take, the runner-up, and why a smaller one fails."""
    if sized.engines is None:
        yield (
            f"Not even {options.most} engines of {options.hardware} keep "
            f"{percent(options.attainment)} of each class at {options.rate:g} requests/s; "
            f"{_why(sized.choices[0])}. Give --most more, a faster --hardware, or wider targets."
        )
        return
    best, *others = sized.choices
    yield (
        f"Take {sized.engines} x {options.hardware}: {best.task.setting}. It keeps "
        f"{best.attained[Rule.ASKED][0]:.1%} {_of_what(best)} at {options.rate:g} requests/s."
    )
    if others:
        yield (
            f"Runner-up: {others[0].task.setting}, {others[0].attained[Rule.ASKED][0]:.1%}; "
            f"{_why(others[0])}."
        )
    if sized.fewer is not None:
        yield (
            f"With {sized.fewer.task.engines} the best is {sized.fewer.task.setting}, below "
            f"{percent(options.attainment)}; {_why(sized.fewer)}."
        )


def _of_what(point: Point) -> str:
    if len(point.classes) == 1:
        return "of all programs"
    return f"of the programs of class {binding_class(point).name}, and more of each other class,"


def _why(point: Point) -> str:
    binding = binding_class(point)
    causes = binding.causes
    if not causes:
        return "no target was missed"
    most = max(causes, key=lambda cause: causes[cause])
    misses = f"is by {most.replace('_', ' ')} ({causes[most]} requests)"
    if len(point.classes) == 1:
        return f"most of what it misses {misses}"
    return f"class {binding.name} binds, most of what it misses {misses}"
