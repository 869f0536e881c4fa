"""`slos-serve bench gateway`: the latency it adds, and the requests that one process takes."""

import asyncio
import json
import os
from collections.abc import Callable, Sequence

from rich.console import Console

from services.bench.gateway_measure import (
    Loads,
    compare_cpu,
    compare_with_engine,
    load_with_stub,
)
from services.bench.gateway_options import GatewayBenchOptions
from services.bench.gateway_report import GatewayResult
from services.bench.load import Load
from services.bench.machine import Machine
from services.bench.parts import Parts
from services.bench.processes import pick_ports
from services.bench.progress import say
from services.bench.run_folder import run_folder
from shared.errors import ConfigError
from shared.models import is_local, resolve_model
from shared.options import load
from shared.tables import for_tables


def main(argv: Sequence[str]) -> int:
    """Measures and prints. Raises ConfigError, DeadlinePassed, PartDied and AnswerFailed."""
    options = load(
        GatewayBenchOptions,
        section="bench_gateway",
        argv=argv,
        environ=os.environ,
        prog="slos-serve bench gateway",
    )
    if not (options.engines or options.stub or options.cpu):
        raise ConfigError(
            "--no-engines, --no-stub and --no-cpu leave nothing to measure: drop one of them."
        )
    if options.router and not (options.engines and options.stock):
        raise ConfigError("--router is measured before the stock server: drop --no-stock.")
    result = measure(options)
    if options.json:
        print(json.dumps(result.as_json()))
    else:
        _print(result)
    return 0


def measure(options: GatewayBenchOptions) -> GatewayResult:
    """Starts one set of processes after another and ends each."""
    machine, model = Machine.read(), resolve_model(options.model, say=say)
    with run_folder(options.run_dir) as run_dir:

        def parts() -> Parts:
            """A set with new ports: those of the last set may not be free at once."""
            return Parts(
                options=options,
                ports=pick_ports(),
                model=model,
                run_dir=run_dir,
                environ={"HF_HUB_OFFLINE": "1"} if is_local(model) else {},
            )

        return GatewayResult(
            machine=machine,
            comparisons=asyncio.run(compare_with_engine(parts())) if options.engines else None,
            cpu=asyncio.run(compare_cpu(parts())) if options.cpu else None,
            loads=_loads(parts, options.workers) if options.stub else None,
        )


def _loads(parts: Callable[[], Parts], workers: Sequence[int]) -> Loads:
    loads: dict[str, list[Load]] = {}
    for count in workers:
        loads |= asyncio.run(load_with_stub(parts(), count))
    return loads


def _print(result: GatewayResult) -> None:
    console = Console()
    wide = for_tables(console)
    for table in result.tables():
        wide.print(table)
    console.print(result.machine.line(), highlight=False, soft_wrap=True)
