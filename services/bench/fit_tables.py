"""Reads published step times into steps, one table per engine."""

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.batch_time import Step
from shared.errors import ConfigError

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A step and the seconds that it took."""

    step: Step
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Steps of one engine. `note` says what the times are."""

    name: str
    note: str
    rows: tuple[Timed, ...]


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file, gzipped or not. Raises ConfigError if it cannot be read."""
    try:
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return list(csv.DictReader(text.decode().splitlines()))


def composed(path: Path) -> Iterator[Table]:
    """Tables by the columns `gpu` and `model`, if they exist; times in milliseconds."""
    by_engine: defaultdict[str, list[Timed]] = defaultdict(list)
    for row in read_rows(path):
        engine = " ".join(row[name] for name in ("gpu", "model") if name in row)
        try:
            by_engine[engine].append(_composed_step(row))
        except (KeyError, ValueError) as error:
            raise ConfigError(f"{path}: a row does not hold {error}") from error
    for engine, rows in by_engine.items():
        name = f"{path.name.split('.')[0]} {engine}".strip()
        yield Table(name=name, note="whole steps", rows=tuple(rows))


def _composed_step(row: Row) -> Timed:
    decodes, chunks = float(row["decodes"]), float(row["prefill_chunks"])
    prefill_tokens = float(row["tokens"]) - decodes
    earlier_tokens = float(row["prefill_earlier_context_tokens"])
    step = Step(
        decodes=decodes,
        decode_context_tokens=float(row["decode_context_tokens"]),
        chunks=chunks,
        prefill_tokens=prefill_tokens,
        earlier_tokens=earlier_tokens,
        attention_pairs=float(row["prefill_attention_pairs"]),
        longest_prompt_tokens=(earlier_tokens + prefill_tokens) / chunks if chunks else 0.0,
    )
    return Timed(step=step, seconds=float(row["step_time_ms"]) / 1e3)


def splitwise(path: Path) -> Iterator[Table]:
    """Each row gives a prefill step and a mean decode step of the batch, in milliseconds."""
    by_engine: defaultdict[str, list[Timed]] = defaultdict(list)
    for row in read_rows(path):
        batch, prompt = float(row["batch_size"]), float(row["prompt_size"])
        if row["tensor_parallel"] == "2" and batch == 64:  # the publishers say that it did not fit
            continue
        engine = f"{row['model']} {row['hardware']} tp{row['tensor_parallel']}"
        prefill = Step(
            chunks=batch,
            prefill_tokens=batch * prompt,
            attention_pairs=batch * prompt**2 / 2,
            longest_prompt_tokens=prompt,
        )
        context = batch * (prompt + float(row["token_size"]) / 2)
        decode = Step(decodes=batch, decode_context_tokens=context)
        by_engine[engine] += [
            Timed(step=prefill, seconds=float(row["prompt_time"]) / 1e3),
            Timed(step=decode, seconds=float(row["token_time"]) / 1e3),
        ]
    for engine, rows in by_engine.items():
        yield Table(name=f"splitwise {engine}", note="whole iterations", rows=tuple(rows))


def sarathi(folder: Path) -> Iterator[Table]:
    """Steps of figure 2 (seconds) and table 2 (milliseconds); contexts were not published."""
    timed = []
    for file, unit in (
        ("figure-2_decode", 1.0),
        ("figure-2_prefill", 1.0),
        ("table-2_results", 1e3),
    ):
        path = folder / f"sarathi_yi34b_tp2_a100pcie_{file}.csv"
        for row in read_rows(path) if path.exists() else []:
            step = Step(decodes=float(row["batch_num_decode_tokens"]))
            step = step.with_chunk(float(row["batch_num_prefill_tokens"]))
            timed.append(Timed(step=step, seconds=float(row["batch_execution_time"]) / unit))
    if timed:
        yield Table(name="sarathi yi-34b A100 tp2", note="whole steps", rows=tuple(timed))
