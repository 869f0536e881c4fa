"""Reads arrivals and lengths of a real trace, scaled down to what a small engine can do."""

import csv
import gzip
import io
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.bench.capacity.classes import OUTPUT_BOUNDS, PROMPT_BOUNDS
from services.bench.capacity.workload import Arrival, Load
from shared.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceScale:
    """Arrivals from `start_s` on; lengths are divided, then kept within the classes' bounds."""

    start_s: float
    prompt: float
    output: float


def read_trace(path: Path, classes: Sequence[str], scale: TraceScale, seed: int) -> Load:
    """All requests of the trace from its start on, each with a class drawn for it.

    Raises ConfigError when the file cannot be read or holds fewer than two requests there.
    """
    draw = random.Random(seed)  # noqa: S311 - no secret is made of it
    try:
        arrivals = [
            _arrival(row, draw.choice(classes), scale)
            for row in _rows(path)
            if float(row["arrival_s"]) >= scale.start_s
        ]
    except (OSError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--trace {path} is no CSV file with arrival_s, input_tokens and output_tokens: {error}"
        ) from error
    if len(arrivals) < 2:
        raise ConfigError(f"--trace {path} has no requests after {scale.start_s:g} s.")
    return Load(name=path.name.split(".")[0], arrivals=arrivals)


def _rows(path: Path) -> Iterator[Mapping[str, str]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    yield from csv.DictReader(io.StringIO(text))


def _arrival(row: Mapping[str, str], class_name: str, scale: TraceScale) -> Arrival:
    return Arrival(
        at=float(row["arrival_s"]),
        class_name=class_name,
        prompt_tokens=_scaled(row["input_tokens"], scale.prompt, PROMPT_BOUNDS),
        output_tokens=_scaled(row["output_tokens"], scale.output, OUTPUT_BOUNDS),
    )


def _scaled(tokens: str, factor: float, bounds: tuple[int, int]) -> int:
    return min(max(round(int(tokens) / factor), bounds[0]), bounds[1])
