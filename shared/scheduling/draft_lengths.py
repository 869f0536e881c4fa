"""What a choice of draft lengths leaves for prefills, and the choice that leaves most. Compiled; it
learns nothing and knows no engine but by its step times.

Tiers are rows of TPOT_S, DECODING (requests), CONTEXT (mean tokens); `produced` and `sure` are
tokens per request and step, by tier and by length from 1 up. A length counts the token of plain
decoding.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import (
    CHUNKS,
    COUNTS,
    DECODE_CONTEXT,
    DECODES,
    LONGEST_CONTEXT,
    LONGEST_PROMPT,
    PAIRS,
    PREFILL,
    SPECULATED,
    SPECULATION_STEPS,
    Numbers,
    sure_s,
)
from shared.compiled import compiled

Integers = npt.NDArray[np.int64]
Produced = npt.NDArray[np.float64]
TPOT_S, DECODING, CONTEXT = range(3)
_ROUNDING: Final = 1e-12


@compiled
def most_bought(
    tiers: Numbers, produced: Produced, sure: Produced, table: Numbers, most_tokens: int
) -> tuple[Integers, float, int]:
    """The lengths that leave the most prefill tokens a second, their step's seconds and its prefill
    tokens; zeros where none leave any. Left out are those whose steps without prefills keep not all
    paces by `sure` (empty: none are left out).

    Each tier in turn is the bottleneck, at each length; the others take the shortest length with
    which they may wait as long. The best of all vectors is among them.
    """
    best, best_s, best_tokens = np.zeros(len(tiers), dtype=np.int64), 0.0, 0
    shares = np.ones(len(tiers))
    for tier in range(len(tiers)):
        for length in range(1, produced.shape[1] + 1 if _paced(tiers, tier) else 1):
            lengths = _least(tiers, produced, tiers[tier, TPOT_S] * produced[tier, length - 1])
            if lengths.min() == 0 or (len(sure) and not keep(lengths, tiers, sure, table)):
                continue
            unit_s = _allowed_s(lengths, tiers, produced)
            step_s, tokens = filled(lengths, shares, tiers, table, unit_s, most_tokens)
            if tokens * best_s > best_tokens * step_s or (tokens > 0 and best_tokens == 0):
                best, best_s, best_tokens = lengths, step_s, tokens
    return best, best_s, best_tokens


@compiled
def bought(
    lengths: Integers, tiers: Numbers, produced: Produced, table: Numbers, most_tokens: int
) -> tuple[float, int]:
    """Seconds and prefill tokens of a step with every tier in it, which lasts no longer than each
    of them can wait for what it yields.
    """
    unit_s = _allowed_s(lengths, tiers, produced)
    return filled(lengths, np.ones(len(tiers)), tiers, table, unit_s, most_tokens)


@compiled
def keep(lengths: Integers, tiers: Numbers, produced: Produced, table: Numbers) -> bool:
    """Whether steps of all tiers, without prefills, are no longer than each of them can wait."""
    step_s = sure_s(table, step_of(lengths, np.ones(len(tiers)), tiers))
    return bool(step_s <= _allowed_s(lengths, tiers, produced))


@compiled
def filled(
    lengths: Integers,
    shares: Numbers,
    tiers: Numbers,
    table: Numbers,
    unit_s: float,
    most_tokens: int,
) -> tuple[float, int]:
    """The step of these `shares` of each tier with the best chunk of a prompt that fits in."""
    counts = step_of(lengths, shares, tiers)
    room = most_tokens - int(np.ceil(counts[DECODES] + counts[SPECULATED] - 1e-9))
    tokens = _room(table, counts, unit_s, room)
    return float(sure_s(table, counts)), tokens


@compiled
def step_of(lengths: Integers, shares: Numbers, tiers: Numbers) -> Numbers:
    """The counts of a step without prefills; `shares` of the tiers' requests take part."""
    counts = np.zeros(COUNTS)
    for tier in range(len(tiers)):
        requests, drafts = shares[tier] * tiers[tier, DECODING], lengths[tier] - 1.0
        if requests > 0:
            counts[DECODES] += requests
            counts[SPECULATED] += requests * drafts
            counts[SPECULATION_STEPS] = max(counts[SPECULATION_STEPS], drafts)
            counts[DECODE_CONTEXT] += requests * tiers[tier, CONTEXT]
            counts[LONGEST_CONTEXT] = max(counts[LONGEST_CONTEXT], tiers[tier, CONTEXT])
    return counts


@compiled
def _paced(tiers: Numbers, tier: int) -> bool:
    return bool(tiers[tier, DECODING] > 0 and tiers[tier, TPOT_S] < np.inf)


@compiled
def _least(tiers: Numbers, produced: Produced, unit_s: float) -> Integers:
    """By tier the shortest length whose allowed time is not below; 0 where none is that long."""
    lengths = np.zeros(len(tiers), dtype=np.int64)
    for tier in range(len(tiers)):
        if not _paced(tiers, tier):
            lengths[tier] = 1
            continue
        for length in range(produced.shape[1], 0, -1):
            if tiers[tier, TPOT_S] * produced[tier, length - 1] >= (1 - _ROUNDING) * unit_s:
                lengths[tier] = length
    return lengths


@compiled
def _allowed_s(lengths: Integers, tiers: Numbers, produced: Produced) -> float:
    allowed_s = np.inf
    for tier in range(len(tiers)):
        if _paced(tiers, tier):
            wait_s = tiers[tier, TPOT_S] * produced[tier, lengths[tier] - 1]
            allowed_s = min(allowed_s, wait_s)
    return float(allowed_s)


@compiled
def _with_chunk(table: Numbers, counts: Numbers, tokens: int) -> float:
    """Seconds of the step when `counts` has one chunk of a prompt, from its start."""
    counts[CHUNKS] = 1.0 if tokens > 0 else 0.0
    counts[PREFILL] = tokens
    counts[PAIRS] = tokens * tokens / 2.0
    counts[LONGEST_PROMPT] = tokens
    return float(sure_s(table, counts))


@compiled
def _room(table: Numbers, counts: Numbers, unit_s: float, most_tokens: int) -> int:
    """The chunk within `unit_s` and `most_tokens` that computes most prefill tokens a second; 0
    when there is none. Leaves it in `counts`.

    Times are convex in the chunk, so the tokens per second rise and then fall.
    """
    low, high = 0, max(0, most_tokens)
    while low < high:
        middle = (low + high + 1) // 2
        if _with_chunk(table, counts, middle) <= unit_s:
            low = middle
        else:
            high = middle - 1
    first, last = min(1, low), low
    while first < last:
        middle = (first + last) // 2
        here_s = _with_chunk(table, counts, middle)
        if (middle + 1) * here_s > middle * _with_chunk(table, counts, middle + 1):
            first = middle + 1
        else:
            last = middle
    _with_chunk(table, counts, first)
    return first
