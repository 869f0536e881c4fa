"""Composes whole steps from measured attention calls and other layers of one engine.

The engine is Llama-3.1-8B under vLLM on an RTX PRO 6000. Layers are measured by number of tokens,
output heads by number of sequences.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.bench.fit_tables import Row, Table, Timed, read_rows
from shared.batch_time import Step

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]  # sizes in order, microseconds

_PREFIX = "RTXPRO6000_llama3.1-8b"
_NAME = "RTXPRO6000 llama3.1-8b"
_BLOCKS = 32
_TIMES_IN_BLOCK = {"layernorm": 2}
_ONCE = ("embedding", "final_layernorm")  # layers by tokens outside the blocks
_MOST_TOKENS = 2048  # the largest step with measured layers
# For a call in both tables, the skewed one gives three times the other's time.
_SKEWED_LAYERS = 3
_KV_TOKENS = 530_000  # capacity beside the weights, at 128 KiB a token


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One attention call of one layer."""

    step: Step
    seconds: float

    @property
    def held_tokens(self) -> float:
        """Tokens of the step's requests in the KV cache."""
        return self.step.decode_context_tokens + self.step.longest_prompt_tokens

    @property
    def fits(self) -> bool:
        return self.step.tokens <= _MOST_TOKENS and self.held_tokens <= _KV_TOKENS


class Layers:
    """All layers but attention, in seconds, interpolated linearly between measured sizes."""

    def __init__(self, by_tokens: list[Row], by_sequences: list[Row]) -> None:
        self._by_tokens = _curves(by_tokens, "tokens")
        self._by_sequences = _curves(by_sequences, "sequences")

    def seconds(self, step: Step) -> float:
        blocks = sum(
            (1 if layer in _ONCE else _BLOCKS * _TIMES_IN_BLOCK.get(layer, 1))
            * _at(curve, step.tokens)
            for layer, curve in self._by_tokens.items()
        )
        heads = sum(_at(curve, step.decodes + step.chunks) for curve in self._by_sequences.values())
        return (blocks + heads) / 1e6


def hybrid(folder: Path) -> Iterator[Table]:
    """Tables of whole steps (fitting the card, half filling it, all, skewed) and of attention."""
    files = [folder / f"{_PREFIX}_{name}.csv.gz" for name in ("dense", "per_sequence", "attention")]
    if not all(path.exists() for path in files):
        return
    layers = Layers(read_rows(files[0]), read_rows(files[1]))
    grid = [_grid_call(row) for row in read_rows(files[2])]
    fitting = [call for call in grid if call.fits]
    whole = "attention measured in one call, other layers added"
    yield _table("steps", f"{whole}; what fits the card", _whole(fitting, layers))
    half = [call for call in fitting if call.held_tokens <= _KV_TOKENS / 2]
    yield _table("steps, card half full", whole, _whole(half, layers))
    yield _table("steps, all of the grid", whole, _whole(grid, layers))
    yield _table("attention", "one layer's attention call", _alone(fitting))
    skew = folder / f"{_PREFIX}_skew.csv.gz"
    if skew.exists():
        skewed = [call for call in map(_skewed_call, read_rows(skew)) if call.fits]
        yield _table("skewed steps", f"{whole}; contexts differ", _whole(skewed, layers))


def _grid_call(row: Row) -> Call:
    decodes = float(row["n_decode"])
    step = Step(decodes=decodes, decode_context_tokens=decodes * float(row["kv_decode"]))
    step = step.with_chunk(float(row["prefill_chunk"]), float(row["kv_prefill"]))
    return Call(step=step, seconds=float(row["time_us"]) / 1e6)


def _skewed_call(row: Row) -> Call:
    decodes = float(row["n"])
    step = Step(
        decodes=decodes,
        decode_context_tokens=decodes * float(row["kv_mean"]),
        longest_context_tokens=float(row["kv_big"]),
    )
    step = step.with_chunk(float(row["pc"]), float(row["kp"]))
    return Call(step=step, seconds=float(row["t_skew_us"]) / _SKEWED_LAYERS / 1e6)


def _whole(calls: list[Call], layers: Layers) -> tuple[Timed, ...]:
    return tuple(
        Timed(step=call.step, seconds=_BLOCKS * call.seconds + layers.seconds(call.step))
        for call in calls
    )


def _alone(calls: list[Call]) -> tuple[Timed, ...]:
    return tuple(Timed(step=call.step, seconds=call.seconds) for call in calls)


def _table(name: str, note: str, rows: tuple[Timed, ...]) -> Table:
    return Table(name=f"{_NAME} {name}", note=note, rows=rows)


def _curves(rows: list[Row], size: str) -> dict[str, Curve]:
    by_layer = defaultdict(list)
    for row in rows:
        by_layer[row["layer"]].append((float(row[size]), float(row["time_us"])))
    sorted_points = {layer: np.array(sorted(points)) for layer, points in by_layer.items()}
    return {layer: (points[:, 0], points[:, 1]) for layer, points in sorted_points.items()}


def _at(curve: Curve, size: float) -> float:
    """Interpolates linearly; beyond the last size, in proportion to the size."""
    sizes, times = curve
    return float(np.interp(size, sizes, times)) * max(1.0, size / float(sizes[-1]))
