"""`slos-serve bench WHAT`: finds the measurement and passes it the remaining arguments."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from shared.entry import exit_status
from shared.errors import ConfigError
from shared.spelling import nearest

PROGRAM = "slos-serve bench"
RENAMED = {"day": "soak", "reality": "fidelity"}  # old names, which still work in this release
MODULES = {
    "capacity": ("services.bench.capacity.command", "the greatest load within SLOs, beside vLLM's"),
    "chaos": (
        "services.bench.chaos.command",
        "faults in a fleet under load: processes die, hang, lose links; every answer is compared",
    ),
    "fidelity": (
        "services.bench.fidelity.command",
        "the running system beside the simulator, on the same requests",
    ),
    "fit": ("services.bench.fit", "errors of fitted step times, the paper's form beside ours"),
    "gateway": ("services.bench.gateway", "what the gateway adds, and how much it can take"),
    "gpu": (
        "services.bench.gpu.command",
        "this machine's GPU: answers, step times, drafts and promises, in minutes",
    ),
    "hardware": ("services.bench.hardware", "errors of simulated engines; makes their tables"),
    "kv": ("services.bench.kv", "how fast KV moves over NIXL, a memory copy and TCP"),
    "planner": ("services.bench.planner", "what decisions, forming steps and reports cost"),
    "prefixes": ("services.bench.prefixes", "memory and look-ups of the planner's prefix index"),
    "soak": (
        "services.bench.soak.command",
        "a bursty load, recorded: predicted beside real times, misses by cause",
    ),
}


def main(argv: Sequence[str]) -> int:
    """Runs one measurement. Raises ConfigError when there is none of that name."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    known = MODULES.get(_present_name(argv[0]))
    if known is None:
        raise ConfigError(f"unknown measurement {argv[0]}{nearest(argv[0], MODULES)}")
    # Imports this module alone: some of them load vLLM, which takes seconds.
    return int(import_module(known[0]).main(argv[1:]))


def _present_name(name: str) -> str:
    """The name of the measurement. For an old name, prints the new one and copies its variables."""
    present = RENAMED.get(name)
    if present is None:
        return name
    print(
        f"{PROGRAM} {name} is now {PROGRAM} {present}; the old name works in this release only",
        file=sys.stderr,
    )
    old, new = (f"SLOS_BENCH_{one.upper()}_" for one in (name, present))
    for variable, text in list(os.environ.items()):
        if variable.startswith(old):
            os.environ.setdefault(variable.replace(old, new, 1), text)
    return present


def usage() -> str:
    lines = [f"usage: {PROGRAM} WHAT [options]   ({PROGRAM} WHAT --help lists them)", ""]
    return "\n".join([*lines, *(f"  {name:<9} {words}" for name, (_, words) in MODULES.items())])


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program=PROGRAM))
