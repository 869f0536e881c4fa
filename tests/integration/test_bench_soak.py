"""`bench soak` with real engines: everything that came is in the records, with its end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.limits import RUN_LIMIT_S, START_LIMIT_S

COMMAND = (sys.executable, "-m", "services.bench", "soak", "--json")
# Engines fill their KV cache with zeros as they start.
ENGINE = json.dumps({"num_gpu_blocks_override": 1024})
SMALL = (
    *("--model=tiny", "--minutes=0.1", "--rate=5", "--drain-s=60"),
    f"--start-limit-s={START_LIMIT_S}",
)


@pytest.mark.engines
def test_a_short_soak_test_loses_no_request_and_can_be_summed_up_again(tmp_path: Path) -> None:
    def run(*words: str) -> dict[str, Any]:
        ended = subprocess.run(
            [*COMMAND, *words],
            env={**os.environ, "SLOS_PREFILL_VLLM": ENGINE, "SLOS_DECODE_VLLM": ENGINE},
            capture_output=True,
            text=True,
            timeout=RUN_LIMIT_S,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        found: dict[str, Any] = json.loads(ended.stdout)
        return found

    plot = tmp_path / "soak.svg"
    first = run(*SMALL, f"--run-dir={tmp_path}", f"--plot={plot}")
    again = run(f"--records={tmp_path}")

    assert (first["requests"], first["all"]["requests"], first["all"]["lost"]) == (30, 30, 0)
    assert first["decisions_of_other_requests"] == 19  # warm-up and idle times
    assert plot.stat().st_size > 1000
    assert again["all"] == first["all"]
    assert again["causes"] == first["causes"]
