"""`slos-serve bench soak`: runs a node under a bursty load and explains every miss."""

import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError
from rich.console import Console

from services.bench.capacity.judge import Judged
from services.bench.kept_run import DECISIONS, about, new_folder, show
from services.bench.machine import Machine
from services.bench.progress import say
from services.bench.soak.options import SoakOptions
from services.bench.soak.plot import draw
from services.bench.soak.records import keep_answers, read_soak, unreadable
from services.bench.soak.report import tables
from services.bench.soak.run import SoakRun, load_of
from services.bench.soak.summary import summary_json
from services.node.config import NodeOptions
from services.node.plan import NodePlan
from services.node.up import run_node
from shared.clock import MonotonicClock
from shared.errors import ConfigError
from shared.options import load

_MODEL_LEN: Final = 2048  # as in the demo
_RESULT: Final = "soak.json"


def main(argv: Sequence[str]) -> int:
    """Runs and prints. Raises ConfigError, and the errors of the node's start."""
    options = load(
        SoakOptions,
        section="bench_soak",
        argv=argv,
        environ=os.environ,
        prog="slos-serve bench soak",
    )
    machine = Machine.read()
    if options.records:
        folder = Path(options.records).expanduser().resolve()
    else:
        folder = new_folder("soak", options.run_dir)
        _serve(options, folder)
    try:
        soak = read_soak(folder)
    except ValidationError as error:
        raise unreadable(folder, error) from error
    result = {**summary_json(soak), **about(options, machine, folder)}
    if not options.records:
        (folder / _RESULT).write_text(json.dumps(result, indent=1))
    kept = f"Decisions, answers and logs: {folder}"
    show(result, tables, (kept, machine.line()), as_json=options.json)
    if options.plot:  # last: the numbers are printed even if it fails
        draw(soak, Path(options.plot).expanduser())
    return 0


def _serve(options: SoakOptions, folder: Path) -> None:
    """Starts the node, runs the load and stops it; its planner records the decisions."""
    load_of(options)  # an unreadable trace fails before anything starts
    judged: list[Judged] = []

    async def use(plan: NodePlan) -> int:
        run = SoakRun(options=options, clock=MonotonicClock(), say=say)
        judged.extend(await run.send_all(plan.url, plan.model_name))
        return 0

    node = NodeOptions(
        model=options.model,
        prefill=options.prefill,
        decode=options.decode,
        max_model_len=_MODEL_LEN,
        auto_ports=True,
        restart=False,
        run_dir=str(folder),
        start_limit_s=options.start_limit_s,
    )
    config = str(_configuration(folder))
    status = run_node(node, config=config, use=use, console=Console(stderr=True))
    if status or not judged:
        raise ConfigError(f"The soak test ended early; logs are in {folder / 'logs'}.")
    keep_answers(folder, judged)


def _configuration(folder: Path) -> Path:
    """The demo's configuration, with a planner that records its decisions."""
    told: dict[str, Any] = yaml.safe_load((files("services.node") / "demo.yaml").read_text("utf-8"))
    del told["node"]
    folder.mkdir(parents=True, exist_ok=True)
    told["planner"] = {"decisions_log": str(folder / DECISIONS)}
    path = folder / "node.yaml"
    path.write_text(yaml.safe_dump(told))
    return path
