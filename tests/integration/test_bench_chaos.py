"""`bench chaos` on a real fleet: links are cut under load, and every answer is right.

With SLOS_TEST_ALL_CASES engine cores are killed as well, as two_decodes/test_moves.py does.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.limits import RUN_LIMIT_S, START_LIMIT_S

COMMAND = (sys.executable, "-m", "services.bench", "chaos", "--json")
FAULTS = ("cut", "kill-core") if os.environ.get("SLOS_TEST_ALL_CASES") else ("cut",)
SMALL = (
    *("--minutes=0.15", "--calm-s=1", "--seed=1", "--answers=10", "--clients=3"),
    *("--prefill=1", "--decode=1", "--gateways=1", "--kv-cache-gib=0.05"),
    f"--start-limit-s={START_LIMIT_S}",
    *(f"--faults={kind}" for kind in FAULTS),
)


@pytest.mark.engines
def test_whatever_is_lost_every_answer_is_right_and_nothing_is_left(tmp_path: Path) -> None:
    ended = subprocess.run(
        [*COMMAND, *SMALL, f"--run-dir={tmp_path}"],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )

    assert ended.stdout, ended.stderr
    found = json.loads(ended.stdout)
    print(json.dumps(found["faults"], indent=1))
    assert found["problems"] == []
    assert ended.returncode == 0
    assert found["faults"]
    assert found["all"]["answers"] > 0
    told_tasks = {name for name, used in found["used"].items() if used["before"]["tasks"]}
    assert told_tasks == {"planner", "gateway-0", "prefill-0", "decode-0"}
    assert found["all"]["wrong"] == found["all"]["failed"] == 0
    assert json.loads((tmp_path / "chaos.json").read_text())["faults"] == found["faults"]
