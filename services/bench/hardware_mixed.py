"""Fits how much more one attention call for chunks and decodes costs than two separate calls.

The measurement is of one GPU (RTX PRO 6000, Llama-3.1-8B); only its ratios are used.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.bench.fit_tables import read_rows
from shared.hardware import TrueStep

Floats = NDArray[np.float64]
_FILE = "RTXPRO6000_llama3.1-8b_attention.csv.gz"
_COLUMNS = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
_LEAST_CONTEXT, _MOST_CONTEXT = 256, 4096  # below, kernel launches dominate
_HALVES = (4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_SHARES = tuple(round(0.05 * one, 2) for one in range(1, 80))
_DECODE_HALVES = (8.0, 16.0, 32.0, 64.0, 96.0, 128.0, 192.0, 256.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """As in `TrueStep`; `off` is the mean absolute logarithm of measured over fitted ratio."""

    share: float
    chunk_tokens: float
    decodes: float
    off: float


def fit_mixed(folder: Path) -> Mixed:
    """Grid search for the least `off`. Raises ConfigError without the measurement."""
    chunk, decodes, ratio = _ratios(folder)
    found = []
    for chunk_half, decode_half in product(_HALVES, _DECODE_HALVES):
        base = chunk / (chunk + chunk_half) * decodes / (decodes + decode_half)
        for share in _SHARES:
            off = float(np.mean(np.abs(np.log((1 + share * base) / ratio))))
            found.append((off, share, chunk_half, decode_half))
    off, share, chunk_tokens, decode_half = min(found)
    return Mixed(share=share, chunk_tokens=chunk_tokens, decodes=decode_half, off=off)


def with_mixed(step: TrueStep, mixed: Mixed) -> TrueStep:
    return step.changed(
        mixed_share=mixed.share,
        mixed_chunk_tokens=mixed.chunk_tokens,
        mixed_decodes=mixed.decodes,
    )


def _ratios(folder: Path) -> tuple[Floats, Floats, Floats]:
    """Chunk tokens, decodes and ratio of the mixed calls with both parts measured separately."""
    times = {
        tuple(int(row[name]) for name in _COLUMNS): float(row["time_us"])
        for row in read_rows(folder / _FILE)
    }
    found = []
    for (chunk, earlier, decodes, context), seconds in times.items():
        prefill, decode = times.get((chunk, earlier, 0, 0)), times.get((0, 0, decodes, context))
        usual = _LEAST_CONTEXT <= context <= _MOST_CONTEXT and earlier <= _MOST_CONTEXT
        if chunk and decodes and usual and prefill and decode:
            found.append((chunk, decodes, seconds / (prefill + decode)))
    chunks, many, ratios = np.array(found, dtype=np.float64).T
    return chunks, many, ratios
