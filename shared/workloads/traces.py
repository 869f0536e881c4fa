"""Reads a load from a trace file: Azure, Mooncake, BurstGPT, ServeGen, or plain columns.

| format | file |
|---|---|
| Azure 2023 and later | CSV: TIMESTAMP, ContextTokens, GeneratedTokens |
| compact | CSV: arrival_s, input_tokens, output_tokens |
| Mooncake | JSON lines: timestamp (ms), input_length, output_length, hash_ids (of 512 tokens) |
| Mooncake, compact | CSV: timestamp_ms, input_tokens, output_tokens, hash_ids |
| BurstGPT | CSV: Timestamp (s), Request tokens, Response tokens, and others |
| ServeGen | CSV of client windows; that of client lengths beside it |

The first line determines the format. Any file may be gzipped.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import IO, Final

from shared.errors import ConfigError
from shared.workloads import servegen
from shared.workloads.calls import Load
from shared.workloads.trace_load import TracePlan, load_of
from shared.workloads.trace_rows import Row, rows

GENERATED_REQUESTS: Final = 10_000  # of a ServeGen trace, which is unlimited


def read_trace(path: Path, plan: TracePlan) -> Load:
    """The planned part of the trace, as programs of one call each.

    Raises ConfigError for a file that cannot be read, with line and column if one is at fault, and
    for fewer than two requests.
    """
    name = trace_name(path)
    with opened(path) as lines:
        first = next(lines, "")
        whole = chain([first], lines)
        if set(servegen.WINDOW_COLUMNS) <= set(first.strip().split(",")):
            load = _of_servegen(path, whole, plan, name)
        else:
            load = load_of(rows(whole, path.name), plan, name=name)
    if len(load) < 2:
        raise ConfigError(f"{path} has fewer than two requests from {plan.start_s:g} s on.")
    return load


def read_rows(path: Path) -> Iterator[Row]:
    """The unchanged requests of a trace, other than ServeGen's. Raises ConfigError."""
    with opened(path) as lines:
        yield from rows(lines, path.name)


def trace_name(path: Path) -> str:
    """The file's name without its endings."""
    return path.name.split(".")[0]


def _of_servegen(path: Path, lines: Iterator[str], plan: TracePlan, name: str) -> Load:
    beside = path.with_name(path.name.replace("windows", "lengths"))
    if beside == path or not beside.exists():
        raise ConfigError(
            f"{path.name} has client windows of ServeGen; their lengths are expected beside it, "
            "in a file with `lengths` in its name where this one has `windows`"
        )
    with opened(beside) as length_lines:
        known = servegen.lengths(length_lines, beside.name)
    of_clients = servegen.windows(lines, path.name)
    if not known or not of_clients:
        raise ConfigError(f"{path.name} or {beside.name} has no clients")
    found = servegen.rows(of_clients, known, start_s=plan.start_s, seed=plan.seed)
    wanted = replace(plan, start_s=0.0, requests=plan.requests or GENERATED_REQUESTS)
    return load_of(found, wanted, name=name)


@contextmanager
def opened(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a file. A fault of the file, when opened or read, raises ConfigError."""
    try:
        with _text(path) as text:
            yield text
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as a trace: {error}") from error


def _text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
