"""`slos-serve bench WHAT`: finds the measurement and hands it the rest. Measures nothing itself."""

import sys
from collections.abc import Sequence
from importlib import import_module

from shared.entry import exit_status
from shared.errors import ConfigError
from shared.option_values import nearest

PROGRAM = "slos-serve bench"
MODULES = {
    "capacity": ("services.bench.capacity.command", "the load that keeps its targets, with vLLM's"),
    "chaos": (
        "services.bench.chaos.command",
        "a fleet under load whose parts die, hang and lose each other; every answer compared",
    ),
    "day": (
        "services.bench.day.command",
        "a day in its life: predicted beside real, misses by cause",
    ),
    "fit": ("services.bench.fit", "how well step times are fitted, the paper's form beside ours"),
    "gateway": ("services.bench.gateway", "what the gateway adds, and how much it can take"),
    "hardware": ("services.bench.hardware", "how true simulated engines are; makes their tables"),
    "kv": ("services.bench.kv", "how fast KV moves over NIXL, a memory copy and TCP"),
    "reality": (
        "services.bench.reality.command",
        "the running system beside the simulator, on the same requests",
    ),
    "planner": ("services.bench.planner", "what decisions, forming steps and reports cost"),
}


def main(argv: Sequence[str]) -> int:
    """Runs one measurement. Raises ConfigError when there is none of that name."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    known = MODULES.get(argv[0])
    if known is None:
        raise ConfigError(f"unknown measurement {argv[0]}{nearest(argv[0], MODULES)}")
    # Only the module that is asked for: one of them loads vLLM, which takes seconds.
    return int(import_module(known[0]).main(argv[1:]))


def usage() -> str:
    lines = [f"usage: {PROGRAM} WHAT [options]   ({PROGRAM} WHAT --help lists them)", ""]
    return "\n".join([*lines, *(f"  {name:<9} {words}" for name, (_, words) in MODULES.items())])


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program=PROGRAM))
