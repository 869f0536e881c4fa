"""`bench capacity` with real engines, on a model and for moments that take as little as may be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.limits import RUN_LIMIT_S, START_LIMIT_S

COMMAND = (sys.executable, "-m", "services.bench", "capacity", "--real", "--json")
SMALL = (
    *("--model=tiny", "--token-budgets=64", "--rounds=1", "--point-s=2", "--first-rate=5"),
    *("--speculation-tokens=0", "--overload=0", "--drain-s=60", "--kv-cache-gib=0.05"),
    f"--start-limit-s={START_LIMIT_S}",
)


@pytest.mark.engines
def test_stock_and_ours_get_the_same_requests_and_only_json_is_printed(tmp_path: Path) -> None:
    plot = tmp_path / "capacity.svg"
    run = subprocess.run(
        [*COMMAND, *SMALL, f"--plot={plot}", f"--run-dir={tmp_path}"],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    stock, ours = json.loads(run.stdout)["points"]
    assert (stock["system"], ours["system"]) == ("vllm-64", "slos-serve")
    assert stock["requests"] == ours["requests"] == 10
    assert stock["failed"] == ours["failed"] == 0
    assert stock["refused"] == 0
    assert stock["classes"].keys() == ours["classes"].keys()
    assert plot.stat().st_size > 1000
