"""`bench kv` with real NIXL and real sockets, on a geometry that takes a moment."""

import json
import os
import subprocess
import sys

import pytest

from tests.limits import RUN_LIMIT_S

pytest.importorskip("nixl")


def test_all_ways_bring_the_right_bytes_and_only_json_is_printed() -> None:
    small = ["--layers=2", "--kv-heads=1", "--head-size=32", "--rounds=2", "--prompt-tokens=1,70"]
    run = subprocess.run(
        [sys.executable, "-m", "services.bench", "kv", "--json", *small],
        env=os.environ | {"UCX_TLS": "tcp,sm,self"},
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    shown = json.loads(run.stdout)
    assert [row["prompt_tokens"] for row in shown["rows"]] == [1, 70]
    assert all(
        row[way]["mb_per_s"] > 0
        for row in shown["rows"]
        for way in ("nixl", "zmq", "zmq_curve", "memory_copy", "tcp")
    )
    assert shown["handshake_ms"] > 0
    assert shown["machine"]["cores"] >= 1
