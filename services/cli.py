"""`slos-serve COMMAND ...`: finds the command and passes it the remaining arguments."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from shared.entry import exit_status
from shared.errors import ConfigError
from shared.spelling import nearest

PROGRAM = "slos-serve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command: its module, with `main(argv) -> exit status`, and what it is for."""

    module: str
    help: str


COMMANDS = {
    "up": Command(module="services.node.up", help="start a whole node here, or a fleet on Ray"),
    "scale": Command(
        module="services.node.on_ray.scale", help="set the number of engines on Ray: decode=4"
    ),
    "down": Command(module="services.node.on_ray.down", help="end a fleet that was left on Ray"),
    "demo": Command(
        module="services.node.demo", help="start a node, send it requests, show the times"
    ),
    "gateway": Command(module="services.gateway.__main__", help="start a gateway: the OpenAI API"),
    "planner": Command(
        module="services.planner.__main__", help="start the planner, or ask it: --explain ID"
    ),
    "prefill": Command(module="services.prefill.__main__", help="start a prefill engine"),
    "decode": Command(module="services.decode.__main__", help="start a decode engine"),
    "cluster-secret": Command(
        module="services.node.cluster_secret",
        help="make the secret by which the parts of a cluster know each other",
    ),
    "key-hash": Command(
        module="services.gateway.key_hash", help="print the hash of an API key for a tenants file"
    ),
    "drain": Command(
        module="services.node.drain", help="make an engine refuse new requests, or take them again"
    ),
    "doctor": Command(module="services.node.doctor", help="say what is missing on this machine"),
    "health": Command(
        module="shared.rpc.health", help="ask the process at an address whether it serves"
    ),
    "model": Command(
        module="shared.models.__main__", help="build a packaged model in the cache before a start"
    ),
    "profile": Command(
        module="services.bench.profile", help="measure how long this engine's steps take"
    ),
    "simulate": Command(
        module="services.evaluation.simulate",
        help="run a load through a simulated fleet, on a laptop",
    ),
    "capacity": Command(
        module="services.evaluation.capacity", help="how much load each system carries, simulated"
    ),
    "plan": Command(
        module="services.evaluation.plan", help="the smallest fleet for your classes, simulated"
    ),
    "evaluate": Command(
        module="services.evaluation.evaluate", help="the whole evaluation, simulated: make evaluate"
    ),
    "regret": Command(
        module="services.evaluation.regret.command",
        help="find loads on which other systems keep more SLOs, simulated",
    ),
    "bench": Command(module="services.bench.__main__", help="measure: bench gateway, kv, fit"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status is its own, or 2 after one line that says what is wrong."""
    return exit_status(_dispatch, sys.argv[1:] if argv is None else argv, program=PROGRAM)


def _dispatch(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"{PROGRAM} {_version()}")
        return 0
    command = COMMANDS.get(words[0])
    if command is None:
        raise ConfigError(f"unknown command {words[0]}{nearest(words[0], COMMANDS)}")
    # Imports this module alone: some commands load vLLM, which takes seconds.
    return int(import_module(command.module).main(words[1:]))


def usage() -> str:
    lines = [f"usage: {PROGRAM} COMMAND [options]   ({PROGRAM} COMMAND --help lists them)", ""]
    lines += [f"  {name:<14} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "  --version"])


def _version() -> str:
    # takes longer to import than all else here
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(PROGRAM)
    except PackageNotFoundError:
        return "(not installed)"
