"""Stock vLLM beside ours on a mixed load, by `bench capacity`."""

from pathlib import Path
from typing import Final

from services.bench.capacity.classes import MIXED
from services.bench.capacity.command import measure
from services.bench.capacity.options import CapacityOptions
from services.bench.capacity.result import CapacityResult, Searched
from services.bench.capacity.run import loads_of
from services.bench.gpu.findings import Finding
from services.bench.gpu.notebook import Notebook
from services.bench.gpu.options import GpuBenchOptions

_GPU_SHARE: Final = 0.42  # of the GPU's memory for each of the two engines
_STEP_TOKENS: Final = {True: 512, False: 8192}  # of stock vLLM, on CPU and on GPU
_DRAIN_S: Final = 8.0
_MOST_FAILED: Final = 0.01  # of requests that neither system may fail


def look_at_load(options: GpuBenchOptions, folder: Path, notebook: Notebook) -> None:
    """Raises errors of the start."""
    told = CapacityOptions(
        real=True,
        model=options.model,
        dtype=options.engine_dtype,
        max_model_len=options.max_model_len,
        gpu_share=0.0 if options.on_cpu else _GPU_SHARE,
        mixes=(MIXED,),
        token_budgets=(_STEP_TOKENS[options.on_cpu],),
        speculation_tokens=0,
        overload=0.0,
        rounds=options.rounds,
        point_s=options.point_s,
        drain_s=_DRAIN_S,
        seed=options.seed,
        run_dir=str(folder / "load"),
        start_limit_s=options.start_limit_s,
    )
    result = measure(told, loads_of(told))
    for one in result.searched:
        notebook.note(_finding(result, one))
    for note in result.notes:
        notebook.note(Finding.of("load", False, note.splitlines()[0]))


def _finding(result: CapacityResult, one: Searched) -> Finding:
    """Passed where answers came; how many were in time is for the reader to compare."""
    points = result.best_points(one)
    shown = [point.as_json() for point in points.values()]
    asked, failed = (sum(each[key] for each in shown) for key in ("requests", "failed"))
    words = ", ".join(f"{rate:.1f}/s {point.attainment:.0%}" for rate, point in points.items())
    return Finding.of(
        f"load: {one.contender}",
        asked > 0 and failed <= _MOST_FAILED * asked,
        f"in time: {words}; {failed} of {asked} failed",
        **{f"{each['rate_rps']:.4g} requests/s": _counts(each) for each in shown},
    )


def _counts(point: dict[str, object]) -> dict[str, object]:
    keys = ("requests", "attained", "refused", "best_effort", "cut", "failed")
    return {key: point[key] for key in keys}
