"""Measures the cost of scheduling inside vLLM, for `bench planner`; prints JSON in its last line.

It is a separate process, since vLLM and torch take seconds to load and log to stdout.
"""

import json
import sys
import tempfile
from pathlib import Path

from services.bench.scheduler_cost import measure_schedulers
from shared.clock import CpuClock
from shared.models.tiny import make_tiny_model


def main() -> None:
    """Arguments: the number of steps, then numbers of running requests."""
    steps, *running = (int(word) for word in sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="slos-bench-") as named:
        folder = Path(named)
        model = make_tiny_model(folder / "model")
        costs = measure_schedulers(str(model), folder, CpuClock(), running=running, steps=steps)
    print(json.dumps([cost.as_json() for cost in costs]))


if __name__ == "__main__":
    main()
