"""Reads arrivals and lengths of a real trace, scaled down for a small engine."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.bench.capacity.classes import OUTPUT_BOUNDS, PROMPT_BOUNDS
from services.bench.capacity.workload import Arrival, Load
from shared.errors import ConfigError
from shared.workloads.trace_rows import Row
from shared.workloads.traces import read_rows, trace_name


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceScale:
    """Arrivals from `start_s` on; lengths are divided, then clipped to the classes' bounds."""

    start_s: float
    prompt: float
    output: float


def read_trace(path: Path, classes: Sequence[str], scale: TraceScale, seed: int) -> Load:
    """All requests of the trace from its start on, each with a class drawn for it.

    Raises ConfigError if the file cannot be read or has fewer than two requests there.
    """
    draw = random.Random(seed)  # noqa: S311 - no secret is made of it
    arrivals = [
        _arrival(row, draw.choice(classes), scale)
        for row in read_rows(path)
        if row.arrival_s >= scale.start_s
    ]
    if len(arrivals) < 2:
        raise ConfigError(f"--trace {path} has no requests after {scale.start_s:g} s.")
    return Load(name=trace_name(path), arrivals=arrivals)


def _arrival(row: Row, class_name: str, scale: TraceScale) -> Arrival:
    return Arrival(
        at=row.arrival_s,
        class_name=class_name,
        prompt_tokens=_scaled(row.prompt_tokens, scale.prompt, PROMPT_BOUNDS),
        output_tokens=_scaled(row.output_tokens, scale.output, OUTPUT_BOUNDS),
    )


def _scaled(tokens: int, factor: float, bounds: tuple[int, int]) -> int:
    return min(max(round(tokens / factor), bounds[0]), bounds[1])
