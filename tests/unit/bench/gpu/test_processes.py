import sys
from pathlib import Path

import pytest

from services.bench.gpu import processes
from services.bench.gpu.findings import Verdict
from services.bench.gpu.processes import StepRunner
from shared.clock import MonotonicClock
from tests.integration.node import wait_until
from tests.processes import is_alive

NOTES = '{"name": "first", "verdict": "passed", "words": "", "figures": {}}\n'


def runner(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> StepRunner:
    """Runs a shell script in the place of the command; $OUT is the step's notebook."""
    monkeypatch.setattr(processes, "_LEAST_S", 0.1)
    monkeypatch.setenv("OUT", str(folder / "some.jsonl"))
    shell = folder / "python"
    shell.write_text(f"#!/bin/sh\n{script}\n")
    shell.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shell))
    return StepRunner(arguments=(), folder=folder, clock=MonotonicClock())


def test_what_a_step_found_before_it_failed_is_kept_beside_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = runner(
        tmp_path, f"echo '{NOTES.strip()}' > $OUT; echo no memory; exit 2", monkeypatch
    )

    found = failing.run("some", 60.0).findings

    assert [(one.name, one.verdict) for one in found] == [
        ("first", Verdict.PASSED),
        ("some", Verdict.FAILED),
    ]
    assert found[1].words == "no memory"


def test_a_step_beyond_its_limit_is_ended_with_all_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child"
    hanging = runner(tmp_path, f"sleep 1000 & echo $! > {child}; wait", monkeypatch)

    found = hanging.run("some", 0.5).findings

    assert [(one.name, one.verdict) for one in found] == [("some", Verdict.FAILED)]
    assert "not done within" in found[0].words
    wait_until(lambda: not is_alive(int(child.read_text())), 60.0)


def test_without_time_a_step_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = runner(tmp_path, "touch $OUT", monkeypatch)

    (found,) = never.run("some", 0.05).findings

    assert found.verdict is Verdict.SKIPPED
    assert not (tmp_path / "some.jsonl").exists()
