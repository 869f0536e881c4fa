"""`slos-serve plan`: the smallest fleet, and how to split it, for one's own classes and rate."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from services.evaluation.contenders import settings_of
from services.evaluation.drive import drive
from services.evaluation.files import json_of
from services.evaluation.known import Known
from services.evaluation.measure import measure_point
from services.evaluation.mix import read_mix
from services.evaluation.options import PlanOptions
from services.evaluation.points import Point, Task, rounded
from services.evaluation.results import percent
from services.evaluation.scenarios import CLASSES
from services.evaluation.scenes import scene_of
from services.evaluation.sizing import Sized, Sizing, smallest
from services.evaluation.stage import jobs_of, progressing, say
from services.evaluation.systems import OURS
from services.evaluation.too_long import too_long
from services.evaluation.workers import workers
from shared.errors import ConfigError
from shared.options import load
from shared.simulation.judge import Rule

_LEAST_PROGRAMS = 200
_RULES: Final = (Rule.ASKED, Rule.WINDOWS, Rule.DEADLINES)
_WIDTH = 150  # of the tables where there is no terminal


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
    with workers(jobs_of(options.jobs), measure_point) as crew, progressing() as shown:
        return drive({"": _sizing(options)}, crew, Known(), shown.hear("plan"))[""]


def _sizing(options: PlanOptions) -> Sizing:
    scenario = _scenario(options)
    programs = max(_LEAST_PROGRAMS, round(options.seconds * options.rate))

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
        )

    return smallest(
        lambda size: fleets(size, options), task_of, bar=options.attainment, most=options.most
    )


def fleets(size: int, options: PlanOptions) -> list[str]:
    """Labels of the settings of exactly so many engines."""
    scene = scene_of(_scenario(options), options.hardware, size, options.seed)
    return [label for label, one in settings_of(OURS, scene).items() if len(one.roles) == size]


def _scenario(options: PlanOptions) -> str:
    return f"{CLASSES}:{options.classes}"


def _print(sized: Sized, options: PlanOptions) -> None:
    console = Console()
    wide = console if console.is_terminal else Console(width=_WIDTH)
    wide.print(_table(sized.choices))
    for line in sentences(sized, options):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(points: Sequence[Point]) -> Table:
    table = Table(title="Ways to split the smallest fleet, the best first")
    table.add_column("setting")
    for name in ("attained", *_RULES[1:], "p99 TTFT / target", "p99 TPOT / target"):
        table.add_column(name, justify="right")
    table.add_column("missed by")
    for point in points:
        everyone = point.classes[0]
        table.add_row(
            point.task.setting,
            *(f"{point.attained[rule][0]:.1%}" for rule in _RULES),
            f"{everyone.ttft_share:.2f}",
            f"{everyone.tpot_share:.2f}",
            ", ".join(f"{cause} {count}" for cause, count in everyone.causes.items()),
        )
    return table


def sentences(sized: Sized, options: PlanOptions) -> Iterator[str]:
    """What to take, what comes next, and why not less."""
    if sized.engines is None:
        yield (
            f"Not even {options.most} engines of {options.hardware} keep "
            f"{percent(options.attainment)} at {options.rate:g} requests/s; "
            f"{_why(sized.choices[0])}. Give --most more, a faster --hardware, or wider targets."
        )
        return
    best, *others = sized.choices
    yield (
        f"Take {sized.engines} x {options.hardware}: {best.task.setting}. It keeps "
        f"{best.attained[Rule.ASKED][0]:.1%} at {options.rate:g} requests/s."
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


def _why(point: Point) -> str:
    causes = point.classes[0].causes
    if not causes:
        return "nobody missed anything"
    most = max(causes, key=lambda cause: causes[cause])
    return f"most of what it misses is by {most.replace('_', ' ')} ({causes[most]} requests)"
