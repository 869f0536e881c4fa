"""The true step time of a simulated engine.

The planner does not see it: it fits another form to profiled steps, with errors as on a machine.

A true step (TrueStep) is the sum of a fixed cost, layers, sequences, attention and drafts. Layers
take the longer of weight reads and arithmetic (in whole tiles), with a smooth corner. Attention
takes KV reads of decodes, causal pairs of chunks, and a surcharge for mixed calls. For an engine
known only by a profile, its fit is the truth (KnownStep).
"""

import math
from dataclasses import dataclass, field, fields, replace

import numpy as np

from shared.batch_time import StepTable
from shared.batch_time.table import (
    CHUNKS,
    DECODE_CONTEXT,
    DECODES,
    EARLIER,
    PAIRS,
    PREFILL,
    SPECULATED,
    SPECULATION_STEPS,
    FloatArray,
    sure_s,
)
from shared.compiled import compiled

# Offsets into the numbers of a true step, in the order of the fields of TrueStep.
(
    FIXED,
    WEIGHTS,
    WEIGHTS_TOKEN,
    ARITHMETIC,
    ARITHMETIC_TOKEN,
    CORNER,
    TILE_TOKENS,
    TILE_SHARE,
    SEQUENCE,
    CONTEXT,
    EARLIER_TOKEN,
    PAIR,
    MIXED_SHARE,
    MIXED_CHUNK_TOKENS,
    MIXED_DECODES,
    DRAFT,
    DRAFT_SEQUENCE,
    NOISE_SIGMA,
) = range(18)
# The layout of a KnownStep: a negative marker, which no TrueStep has there; the sigmas of decode,
# prefill and mixed steps; the number of ratios of small batches, their sizes (log2) and the ratios;
# a table of step times with mean factors as margins.
_KNOWN, _RATIOS, _SIZES = -1.0, 4, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueStep:
    """Seconds of a step as a function of its counts; it never decreases with more work.

    Raises ValueError if a number is negative or not finite, or one of `corner`, `tile_tokens`,
    `mixed_chunk_tokens` and `mixed_decodes` is below 1.

    Attributes:
        fixed_s: Host time of every step.
        weights_s: Layers of a small step, bound by reading weights; `weights_token_s` per token.
        arithmetic_s: Layers of a large step; `arithmetic_token_s` per token.
        corner: Exponent of the norm that joins the two; a greater one makes a sharper maximum.
        tile_share: Share of the padding tokens of the last tile of `tile_tokens` that cost time.
        sequence_s: Each decode and each chunk.
        context_s: Each KV token that decodes read.
        earlier_s: Each KV token that chunks read.
        pair_s: Each pair of attention within chunks.
        mixed_share: Greatest surcharge on attention for decodes and chunks in one call. Each of its
            two saturating factors is a half at `mixed_chunk_tokens` and at `mixed_decodes`.
        draft_s: One run of the draft model; `draft_sequence_s` more for each sequence.
        noise_sigma: Sigma of the logarithm of the noise factor.
    """

    fixed_s: float = 0.0
    weights_s: float
    weights_token_s: float
    arithmetic_s: float
    arithmetic_token_s: float
    corner: float = 8.0
    tile_tokens: float = 128.0
    tile_share: float = 0.0
    sequence_s: float = 0.0
    context_s: float
    earlier_s: float = 0.0
    pair_s: float
    mixed_share: float = 0.0
    mixed_chunk_tokens: float = 64.0
    mixed_decodes: float = 8.0
    draft_s: float = 0.0
    draft_sequence_s: float = 0.0
    noise_sigma: float = 0.0
    numbers: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value in self.plain.items():
            least = 1.0 if name in _AT_LEAST_ONE else 0.0
            if not least <= value < float("inf"):
                raise ValueError(f"{name} is {value}; it must be {least:g} at least, and finite")
        object.__setattr__(self, "numbers", np.array(list(self.plain.values())))

    @property
    def plain(self) -> dict[str, float]:
        """The numbers by name, in the order of `numbers`."""
        return {one.name: float(getattr(self, one.name)) for one in fields(self) if one.init}

    def changed(self, **numbers: float) -> "TrueStep":
        return TrueStep(**{**self.plain, **numbers})

    def slower(self, factor: float) -> "TrueStep":
        """All steps last `factor` times as long."""
        times_s = {name: time_s for name, time_s in self.plain.items() if name.endswith("_s")}
        return self.changed(**{name: factor * time_s for name, time_s in times_s.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownStep:
    """Seconds of a step of an engine that is known only by a fit and its residuals.

    Attributes:
        table: Step times, with the mean ratio of measured to fitted time as margins.
        sigmas: Of the log-normal noise on decode, prefill and mixed steps.
        by_batch: For steps that only decode, pairs of batch size, ascending, and ratio of measured
            to tabled time, interpolated in the logarithm of the size. Kernels are chosen by size,
            so four decodes may take less time than two.
    """

    table: StepTable
    sigmas: tuple[float, float, float]
    by_batch: tuple[tuple[float, float], ...] = ()
    numbers: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = [math.log2(size) for size, _ in self.by_batch]
        ratios = [ratio for _, ratio in self.by_batch]
        head = [_KNOWN, *self.sigmas, float(len(sizes)), *sizes, *ratios]
        object.__setattr__(self, "numbers", np.array([*head, *self.table.numbers]))

    @property
    def noise_sigma(self) -> float:
        """The mean of the three sigmas."""
        return float(np.mean(self.sigmas))

    def slower(self, factor: float) -> "KnownStep":
        """All steps last `factor` times as long."""
        return replace(self, table=self.table.slower(factor))


_AT_LEAST_ONE = ("corner", "tile_tokens", "mixed_chunk_tokens", "mixed_decodes")


@compiled
def true_s(numbers: FloatArray, counts: FloatArray) -> float:
    """Seconds of the step of these counts (as in `shared.batch_time.table`) without any noise."""
    if numbers[FIXED] < 0:
        return _known_s(numbers, counts)
    decodes, prefill = counts[DECODES], counts[PREFILL]
    tokens = prefill + decodes + counts[SPECULATED]
    drafts = counts[SPECULATION_STEPS]
    return float(
        numbers[FIXED]
        + _layers_s(numbers, tokens)
        + numbers[SEQUENCE] * (decodes + counts[CHUNKS])
        + _attention_s(numbers, counts)
        + drafts * (numbers[DRAFT] + numbers[DRAFT_SEQUENCE] * decodes)
    )


@compiled
def _known_s(numbers: FloatArray, counts: FloatArray) -> float:
    ratios = int(numbers[_RATIOS])
    tabled_s = sure_s(numbers[_SIZES + 2 * ratios :], counts)
    if ratios == 0 or counts[PREFILL] > 0 or counts[SPECULATED] > 0 or counts[DECODES] < 1:
        return float(tabled_s)
    sizes = numbers[_SIZES : _SIZES + ratios]
    found = numbers[_SIZES + ratios : _SIZES + 2 * ratios]
    return float(tabled_s * np.interp(np.log2(counts[DECODES]), sizes, found))


@compiled
def noisy_s(numbers: FloatArray, counts: FloatArray, normal: float) -> float:
    """`true_s` times a log-normal noise factor of mean 1; without stalls.

    `normal` is a draw of the standard normal distribution.
    """
    sigma = _sigma(numbers, counts)
    return float(true_s(numbers, counts) * np.exp(sigma * (normal - 0.5 * sigma)))


@compiled
def _sigma(numbers: FloatArray, counts: FloatArray) -> float:
    if numbers[FIXED] >= 0:
        return float(numbers[NOISE_SIGMA])
    if counts[PREFILL] > 0:
        return float(numbers[3] if counts[DECODES] > 0 else numbers[2])
    return float(numbers[1])


@compiled
def _layers_s(numbers: FloatArray, tokens: float) -> float:
    tile = numbers[TILE_TOKENS]
    padding = np.ceil(tokens / tile) * tile - tokens
    padded = tokens + numbers[TILE_SHARE] * padding
    weights_s = numbers[WEIGHTS] + numbers[WEIGHTS_TOKEN] * tokens
    arithmetic_s = numbers[ARITHMETIC] + numbers[ARITHMETIC_TOKEN] * padded
    longer_s = max(weights_s, arithmetic_s)
    if longer_s <= 0:
        return 0.0
    ratio = min(weights_s, arithmetic_s) / longer_s
    corner = numbers[CORNER]
    return float(longer_s * (1.0 + ratio**corner) ** (1.0 / corner))


@compiled
def _attention_s(numbers: FloatArray, counts: FloatArray) -> float:
    decodes, prefill = counts[DECODES], counts[PREFILL]
    alone_s = (
        numbers[CONTEXT] * counts[DECODE_CONTEXT]
        + numbers[EARLIER_TOKEN] * counts[EARLIER]
        + numbers[PAIR] * counts[PAIRS]
    )
    chunk_share = prefill / (prefill + numbers[MIXED_CHUNK_TOKENS])
    decode_share = decodes / (decodes + numbers[MIXED_DECODES])
    # both shares saturate: only large mixed steps pay the whole surcharge
    return float(alone_s * (1.0 + numbers[MIXED_SHARE] * chunk_share * decode_share))
