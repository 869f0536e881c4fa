"""`slos-serve bench fidelity`: compares the running system with the simulator on equal requests."""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from services.bench.capacity.options import CapacityOptions
from services.bench.capacity.stage import stage
from services.bench.capacity.systems import Systems
from services.bench.fidelity.options import FidelityOptions
from services.bench.fidelity.own_engine import profile, read
from services.bench.fidelity.plot import draw
from services.bench.fidelity.report import as_json, table
from services.bench.fidelity.run import FidelityRun
from services.bench.machine import Machine
from services.bench.progress import say
from services.bench.run_folder import run_folder
from shared.clock import MonotonicClock
from shared.errors import ConfigError
from shared.models import is_local, resolve_model
from shared.options import load
from shared.tables import for_tables


def main(argv: Sequence[str]) -> int:
    """Compares and prints. Raises ConfigError, DeadlinePassed, and errors of the systems."""
    options = load(
        FidelityOptions,
        section="bench_fidelity",
        argv=argv,
        environ=os.environ,
        prog="slos-serve bench fidelity",
    )
    if not (options.stock or options.ours or options.fleet):
        raise ConfigError("--no-stock --no-ours --no-fleet leaves nothing to compare.")
    if not options.real:
        raise ConfigError("say --real: the simulator is compared with engines on this machine.")
    machine = Machine.read()
    with run_folder(options.run_dir) as run_dir:
        run = asyncio.run(_run(options, run_dir))
    if options.json:
        print(json.dumps(as_json(run, machine, asdict(options))), flush=True)
    else:
        console = Console()
        wide = for_tables(console)
        wide.print(table(run.compared))
        console.print(machine.line(), highlight=False, soft_wrap=True)
    if options.plot:
        draw(run, Path(options.plot).expanduser())
    return 0


async def _profile(options: FidelityOptions, systems: Systems) -> Path:
    say("profiling the engine")
    part = systems.profile()
    return await profile(part, options.start_limit_s, times=options.profiles)


async def _run(options: FidelityOptions, run_dir: Path) -> FidelityRun:
    model = resolve_model(options.model, say=say)
    systems = Systems(
        options=CapacityOptions(
            model=options.model,
            dtype=options.dtype,
            max_model_len=options.max_model_len,
            kv_cache_gib=options.kv_cache_gib,
            threads=options.threads,
        ),
        model=model,
        run_dir=run_dir,
        environ={"HF_HUB_OFFLINE": "1"} if is_local(model) else {},
    )
    found = Path(options.profile) if options.profile else await _profile(options, systems)
    links = {"link_bytes_per_s": options.link_bytes_per_s}
    engine = read(found, link_latency_s=options.link_latency_s, **links)
    clock = MonotonicClock()
    limits = {"start_limit_s": options.start_limit_s, "answer_limit_s": options.answer_limit_s}
    async with stage(clock, **limits, say=say) as made:
        run = FidelityRun(
            options=options,
            systems=systems,
            stage=made,
            clock=clock,
            say=say,
            configuration=run_dir / "classes.yaml",
            engine=engine,
        )
        await run.all()
    return run
