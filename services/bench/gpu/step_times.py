"""The profile that an engine measures of itself, and how well its fit predicts held-out steps."""

from pathlib import Path
from typing import Final

from services.bench.fit_measure import ALL
from services.bench.gpu.findings import Finding
from services.bench.gpu.notebook import Notebook
from services.bench.gpu.options import GpuBenchOptions
from services.bench.profile import measured_engine
from shared.engine.config import EngineOptions, ProfileWhen

_MOST_P50_PERCENT: Final = 20.0  # of a fit that promises can stand on
_KV_GIB_ON_CPU: Final = 1.0  # vLLM's default there is nearly all memory
_LEAST_WITHIN: Final = 0.85  # of held-out steps within the bound of 95 %


def look_at_step_times(options: GpuBenchOptions, _: Path, notebook: Notebook) -> None:
    """Raises ConfigError, EngineLost and DeadlinePassed. Later starts use the profile."""
    table, measured = measured_engine(
        EngineOptions(
            model=options.model,
            dtype=options.engine_dtype,
            max_model_len=options.max_model_len,
            kv_cache_gib=_KV_GIB_ON_CPU if options.on_cpu else None,
            profile=ProfileWhen.FRESH,
        )
    )
    ours = measured[-1]
    errors = {kind: one.as_json() for kind, one in ours.errors.items()}
    notebook.note(
        Finding.of(
            "profile",
            True,
            f"{len(table.rows)} steps measured",
            steps=len(table.rows),
            form=ours.form.name,
            longest_step_ms=1000 * max(row.seconds for row in table.rows),
        )
    )
    found = ours.errors[ALL]
    notebook.note(
        Finding.of(
            "fit of step times",
            found.p50 <= _MOST_P50_PERCENT and found.within_upper >= _LEAST_WITHIN,
            f"error of held-out steps: p50 {found.p50:.1f} %, p95 {found.p95:.1f} %; "
            f"{found.within_upper:.0%} within the 95 % bound",
            **errors,
        )
    )
