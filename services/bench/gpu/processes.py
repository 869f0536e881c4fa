"""Runs each step in a process of its own, within its limit."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.bench.gpu.findings import Finding, StepResult, Verdict
from services.bench.gpu.notebook import Notebook
from services.node.processes import tail
from shared.clock import Clock

_STOP_LIMIT_S: Final = 25.0  # engines end their requests and free the GPU
_LEAST_S: Final = 30.0  # a step with less time would only be cut off


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRunner:
    """Runs steps with these arguments of the command; findings and logs go to `folder`."""

    arguments: Sequence[str]
    folder: Path
    clock: Clock

    def run(self, step: str, limit_s: float) -> StepResult:
        """One step; also what it found before it failed or was cut off."""
        notebook = Notebook(path=self.folder / f"{step}.jsonl")
        notebook.path.unlink(missing_ok=True)
        if limit_s < _LEAST_S:
            words = f"{max(0.0, limit_s):.0f} s were left: more with --budget-s"
            skipped = Finding(name=step, verdict=Verdict.SKIPPED, words=words)
            return StepResult(step=step, took_s=0.0, findings=[skipped])
        began_s = self.clock.now()
        ended = self._ended(step, limit_s)
        findings = [*notebook.read(), *self._failure(step, ended, limit_s)]
        return StepResult(step=step, took_s=self.clock.now() - began_s, findings=findings)

    def _ended(self, step: str, limit_s: float) -> int | None:
        """The exit status; None where the limit passed."""
        with self._log(step).open("w") as log:
            command = (sys.executable, "-m", "services.bench", "gpu", *self.arguments)
            process = subprocess.Popen(
                [*command, "--step", step], stdout=log, stderr=log, start_new_session=True
            )
            try:
                return process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return None
            finally:
                _stop(process)

    def _failure(self, step: str, status: int | None, limit_s: float) -> Iterator[Finding]:
        if status is None:
            yield Finding.of(step, False, f"not done within {limit_s:.0f} s")
        elif status:
            last = tail(self._log(step)).strip().splitlines()
            yield Finding.of(step, False, last[-1] if last else f"exit status {status}")

    def _log(self, step: str) -> Path:
        return self.folder / f"{step}.log"


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Lets a step end its engines, then ends whatever is left of it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_LIMIT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
