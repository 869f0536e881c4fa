"""`slos-serve demo`: starts a node, sends a dozen requests, prints a table, and keeps serving."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import httpx
from rich.console import Console

from services.node.config import NodeOptions
from services.node.demo_client import Answer, ask, make_client
from services.node.demo_requests import DemoRequest, demo_requests, first_requests
from services.node.demo_table import lines_to_paste, print_answers, problems
from services.node.plan import NodePlan
from services.node.up import config_file, run_node
from shared.options import load, option
from shared.tables import for_tables

_IN_FLIGHT: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions(NodeOptions):
    """The options of a node and of the demo."""

    once: bool = option(
        False, help="end after the table; exit status 0 when every answer came and both ways went"
    )


def main(argv: Sequence[str]) -> int:
    """Serves until Ctrl-C; with `--once` ends after the table. Raises ConfigError."""
    config = config_file(argv, os.environ)
    words = list(argv)
    if config is None:
        config = str(files("services.node") / "demo.yaml")
        words += ["--config", config]
    options = load(
        DemoOptions, section="node", argv=words, environ=os.environ, prog="slos-serve demo"
    )

    async def show(plan: NodePlan) -> int | None:
        return await _show(plan, Console(), once=options.once)

    return run_node(options, config=config, use=show)


async def _show(plan: NodePlan, console: Console, *, once: bool) -> int | None:
    """Sends the requests and prints the table; returns the exit status, None to go on serving."""
    requests = demo_requests()
    console.print(
        f"Sending one short request each way, then {len(requests)}, {_IN_FLIGHT} at a time.",
        highlight=False,
    )
    async with make_client(plan.url) as client:
        await _ask_all(client, first_requests(), plan.model_name)
        answers = await _ask_all(client, requests, plan.model_name)
    wide = for_tables(console)
    print_answers(answers, wide)
    found = problems(answers)
    for line in found:
        console.print(f"Not well: {line}", style="red", markup=False, soft_wrap=True)
    if once:
        return 1 if found else 0
    print(f"\nServing at {plan.url}/v1 until Ctrl-C. Try:\n")
    print(lines_to_paste(plan.url, plan.model_name), flush=True)
    return None


async def _ask_all(
    client: httpx.AsyncClient, requests: Sequence[DemoRequest], model: str
) -> list[Answer]:
    places = asyncio.Semaphore(_IN_FLIGHT)

    async def one(request: DemoRequest) -> Answer:
        async with places:
            return await ask(client, request, model)

    return list(await asyncio.gather(*(one(request) for request in requests)))
