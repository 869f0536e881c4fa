"""`slos-serve bench capacity`: the load within SLOs that ours and stock vLLM carry."""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from services.bench.capacity.options import CapacityOptions
from services.bench.capacity.plot import draw
from services.bench.capacity.report import tables
from services.bench.capacity.result import CapacityResult
from services.bench.capacity.run import Run, loads_of
from services.bench.capacity.stage import stage
from services.bench.capacity.systems import Systems
from services.bench.capacity.workload import Load
from services.bench.machine import Machine
from services.bench.progress import say
from services.bench.run_folder import run_folder
from shared.clock import MonotonicClock
from shared.errors import ConfigError, SlosError
from shared.models import is_local, resolve_model
from shared.options import load
from shared.tables import for_tables


def main(argv: Sequence[str]) -> int:
    """Measures and prints. Raises ConfigError, and errors before the first point."""
    options = load(
        CapacityOptions,
        section="bench_capacity",
        argv=argv,
        environ=os.environ,
        prog="slos-serve bench capacity",
    )
    if not options.real:
        raise ConfigError("say --real: capacity is measured on real engines, on this machine.")
    if not options.search and not options.saturation:
        raise ConfigError("--no-search leaves nothing to measure without --saturation.")
    result = measure(options, loads_of(options))
    if options.json:
        print(json.dumps(result.as_json()), flush=True)
    else:
        _print(result)
    if options.plot:  # last: the numbers are printed even if it fails
        draw(result, Path(options.plot).expanduser())
    return 0


def measure(options: CapacityOptions, loads: Sequence[Load]) -> CapacityResult:
    """Starts, measures and ends all systems. An error after the first point becomes a note."""
    machine, model = Machine.read(), resolve_model(options.model, say=say)
    with run_folder(options.run_dir) as run_dir:
        systems = Systems(
            options=options,
            model=model,
            run_dir=run_dir,
            environ={"HF_HUB_OFFLINE": "1"} if is_local(model) else {},
        )
        result = CapacityResult(machine=machine, needed=options.attainment, options=asdict(options))
        try:
            asyncio.run(_run(options, loads, systems, result))
        except SlosError as error:
            if not result.points:
                raise
            result.notes.append(f"Ended early: {error}")  # minutes of points are worth showing
        return result


async def _run(
    options: CapacityOptions, loads: Sequence[Load], systems: Systems, result: CapacityResult
) -> None:
    clock = MonotonicClock()
    limits = {"start_limit_s": options.start_limit_s, "answer_limit_s": options.answer_limit_s}
    async with stage(clock, **limits, say=say) as made:
        await Run(
            options=options,
            loads=loads,
            systems=systems,
            stage=made,
            clock=clock,
            say=say,
            result=result,
            configuration=systems.run_dir / "classes.yaml",
        ).all()


def _print(result: CapacityResult) -> None:
    console = Console()
    wide = for_tables(console)
    for table in tables(result):
        wide.print(table)
    for note in result.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    console.print(result.machine.line(), highlight=False, soft_wrap=True)
