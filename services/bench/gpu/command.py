"""`slos-serve bench gpu`: answers, step times and promises on this machine's GPU, in minutes."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import yaml
from rich.console import Console
from rich.table import Table

from services.bench.gpu.answers import look_at_answers
from services.bench.gpu.findings import GpuResult, StepResult, Verdict
from services.bench.gpu.load import look_at_load
from services.bench.gpu.notebook import Notebook
from services.bench.gpu.options import STEPS, GpuBenchOptions
from services.bench.gpu.processes import StepRunner
from services.bench.gpu.speculation import look_at_speculation
from services.bench.gpu.step_times import look_at_step_times
from services.bench.machine import Machine
from services.node.machine import answered_device, ask_device
from shared.clock import MonotonicClock
from shared.errors import ConfigError
from shared.options import load
from shared.spelling import nearest
from shared.tables import for_tables

SECTION = "bench_gpu"
_COLORS: Final = {Verdict.PASSED: "green", Verdict.FAILED: "red", Verdict.SKIPPED: "yellow"}

Look = Callable[[GpuBenchOptions, Path, Notebook], None]
_LOOKS: Final[Mapping[str, Look]] = {
    "profile": look_at_step_times,
    "answers": look_at_answers,
    "load": look_at_load,
    "speculation": look_at_speculation,
}


def main(argv: Sequence[str]) -> int:
    """Runs the steps, writes `gpu.md` and `gpu.json`; 1 where one did not pass.

    Raises ConfigError for an unknown step, and where vLLM computes on nothing here.
    """
    options = load(
        GpuBenchOptions,
        section=SECTION,
        argv=argv,
        environ=os.environ,
        prog="slos-serve bench gpu",
    )
    folder = Path(options.out).expanduser().resolve()
    if options.step:
        _LOOKS[options.step](options, folder, Notebook(path=folder / f"{options.step}.jsonl"))
        return 0
    steps = _steps(options)
    folder.mkdir(parents=True, exist_ok=True)
    device = options.device or answered_device(ask_device())
    if not device:
        raise ConfigError("vLLM finds no device here: see `slos-serve doctor`.")
    result = GpuResult(
        device=device,
        machine=Machine.read().as_json(),
        options=asdict(options),
        results=_run_all(steps, replace(options, device=device, out=str(folder)), folder),
    )
    (folder / "gpu.json").write_text(json.dumps(result.as_json(), indent=1))
    (folder / "gpu.md").write_text(result.as_markdown())
    _print(result, folder, as_json=options.json)
    return 0 if result.is_good else 1


def _steps(options: GpuBenchOptions) -> list[str]:
    for name in options.steps:
        if name not in STEPS:
            raise ConfigError(f"--steps: unknown step {name}{nearest(name, STEPS)}")
    return [name for name in STEPS if name in (options.steps or STEPS)]


def _run_all(steps: Sequence[str], options: GpuBenchOptions, folder: Path) -> list[StepResult]:
    clock = MonotonicClock()
    told = folder / "options.yaml"
    told.write_text(yaml.safe_dump({SECTION: json.loads(json.dumps(asdict(options)))}))
    runner = StepRunner(arguments=("--config", str(told)), folder=folder, clock=clock)
    ends_at_s, results = clock.now() + options.budget_s, list[StepResult]()
    for step in steps:
        print(f"{step} ...", file=sys.stderr, flush=True)
        results.append(
            runner.run(step, min(options.patience * STEPS[step], ends_at_s - clock.now()))
        )
    return results


def _print(result: GpuResult, folder: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result.as_json()), flush=True)
        return
    console = Console()
    wide = for_tables(console)
    table = Table(title=f"GPU check on {result.device}")
    for name in ("step", "finding", "verdict", "s", ""):
        table.add_column(name, justify="right" if name == "s" else "left")
    for step, name, verdict, took, words in result.rows():
        color = _COLORS[Verdict(verdict)]
        table.add_row(step, name, f"[{color}]{verdict}[/{color}]", took, words)
    wide.print(table)
    console.print(f"Figures: {folder / 'gpu.md'}", highlight=False, soft_wrap=True)
