"""`slos-serve bench chaos`: injects seeded faults into a fleet under load, compares all answers."""

import asyncio
import json
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import yaml
from rich.console import Console

from services.bench.chaos.fleet import Fleet, linked
from services.bench.chaos.options import ChaosOptions
from services.bench.chaos.processes import orphans, processes_with
from services.bench.chaos.report import tables
from services.bench.chaos.run import ChaosRun, Found
from services.bench.chaos.summary import summary_json
from services.bench.kept_run import DECISIONS, about, new_folder, show
from services.bench.machine import Machine
from services.bench.progress import say
from services.bench.soak.records import read_decisions
from services.node.config import NodeOptions
from services.node.plan import NodePlan, plan_node
from services.node.ports import assign_ports
from services.node.survey import survey
from services.node.up import serve
from shared.clock import Clock, MonotonicClock
from shared.errors import ConfigError
from shared.options import load

_MODEL_LEN: Final = 1024
_RESULT: Final = "chaos.json"


def main(argv: Sequence[str]) -> int:
    """0 if every answer was right or refused and nothing was left behind, else 1.

    Raises ConfigError, and the errors of the fleet's start.
    """
    options = load(
        ChaosOptions,
        section="bench_chaos",
        argv=argv,
        environ=os.environ,
        prog="slos-serve bench chaos",
    )
    machine, folder = Machine.read(), new_folder("chaos", options.run_dir)
    orphans_before = orphans()
    found = _run(options, folder)
    left = [*processes_with(str(folder)), *sorted(orphans() - orphans_before)]
    summary = summary_json(found, read_decisions(folder), left, options.kv_cache_gib)
    result = {**summary, **about(options, machine, folder)}
    (folder / _RESULT).write_text(json.dumps(result, indent=1))
    problems = summary["problems"]
    lines = (
        *([f"{len(problems)} problems:"] if problems else ["All is well."]),
        *problems,
        f"Decisions, report and logs: {folder}",
        machine.line(),
    )
    show(result, tables, lines, as_json=options.json)
    return 1 if problems else 0


def _run(options: ChaosOptions, folder: Path) -> Found:
    node = NodeOptions(
        model=options.model,
        prefill=options.prefill,
        decode=options.decode,
        max_model_len=_MODEL_LEN,
        auto_ports=True,
        kv_transport=options.kv_transport,
        kv_cache_gib=options.kv_cache_gib,
        run_dir=str(folder),
        start_limit_s=options.start_limit_s,
    )
    console, found = Console(stderr=True), Found()
    ports = assign_ports(node)
    plan = plan_node(node, ports, survey(node, str(_configuration(folder)), console))
    fleet = linked(plan, ports, options.gateways, options.kv_transport)
    status = asyncio.run(_serve(node, options, fleet, found, console))
    if status or not found.ended_at_s:
        raise ConfigError(f"The run ended early; logs are in {folder / 'logs'}.")
    return found


async def _serve(
    node: NodeOptions, options: ChaosOptions, fleet: Fleet, found: Found, console: Console
) -> int:
    clock: Clock = MonotonicClock()

    async def use(_plan: NodePlan) -> int:
        run = ChaosRun(options=options, fleet=fleet, clock=clock, say=say)
        await run.run(found)
        return 0

    async with AsyncExitStack() as links:
        for link in fleet.links:
            await link.open()
            links.push_async_callback(link.close)
        return await serve(node, fleet.plan, use, console)


def _configuration(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "node.yaml"
    told = {
        "planner": {"decisions_log": str(folder / DECISIONS)},
        "gateway": {"tool_call_parser": "hermes"},  # vLLM requires one for requests with tools
    }
    path.write_text(yaml.safe_dump(told))
    return path
