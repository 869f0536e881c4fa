"""Finds the draft lengths with which an engine completes the most work per second. Compiled.

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
    FloatArray,
    sure_s,
)
from shared.compiled import compiled, inlined

Integers = npt.NDArray[np.int64]
Produced = npt.NDArray[np.float64]
TPOT_S, DECODING, CONTEXT = range(3)
# Bounds of a step, in one array: its most tokens, the prompt tokens to compute for each token that
# is produced (inf: as many as fit), and the seconds that prompts may lengthen it to. Then for each
# recent prompt with a TTFT target its weight, and the seconds that it may wait for a step to end.
MOST_TOKENS, PROMPT_TOKENS_EACH, LONGEST_S = range(3)
BOUNDS: Final = 3
# Results of a choice of lengths: the excess of its steps without prefills over the tightest pace,
# as a share of that pace; its worth; the seconds and the prefill tokens of its steps.
VIOLATION, WORTH, STEP_S, PREFILL_TOKENS = range(4)
_FIELDS: Final = 4
_FEW: Final = 256.0  # choices that are searched exhaustively, in less than a millisecond
_MOST_ROUNDS: Final = 4  # over all tiers; a choice settles after two or three
_ROUNDING: Final = 1e-9


@compiled
def best_lengths(
    tiers: FloatArray, produced: Produced, sure: Produced, table: FloatArray, bounds: FloatArray
) -> Integers:
    """The lengths worth most: by exhaustive search where there are few choices, else by coordinate
    ascent over the tiers from each uniform length. Empty tiers do not draft.
    """
    longest, busy = produced.shape[1], np.flatnonzero(tiers[:, DECODING] > 0)
    best = np.ones(len(tiers), dtype=np.int64)
    best_worth = weigh(best, tiers, produced, sure, table, bounds)
    if float(longest) ** len(busy) <= _FEW:
        _look_at_all(best, best_worth, busy, tiers, produced, sure, table, bounds)
        return best
    for start in range(1, longest + 1):
        lengths = np.ones(len(tiers), dtype=np.int64)
        for tier in range(len(tiers)):
            if tiers[tier, DECODING] > 0:
                lengths[tier] = start
        worth = weigh(lengths, tiers, produced, sure, table, bounds)
        for _ in range(_MOST_ROUNDS):
            if not _improve(lengths, worth, tiers, produced, sure, table, bounds):
                break
        if is_better(worth, best_worth, 1.0):
            best, best_worth = lengths, worth
    return best


@compiled
def _look_at_all(
    best: Integers,
    best_worth: FloatArray,
    busy: npt.NDArray[np.intp],
    tiers: FloatArray,
    produced: Produced,
    sure: Produced,
    table: FloatArray,
    bounds: FloatArray,
) -> None:
    """Tries all choices, counted like the digits of a number, and writes the best to `best`."""
    lengths = best.copy()
    for _ in range(produced.shape[1] ** len(busy) - 1):
        for tier in busy:
            if lengths[tier] < produced.shape[1]:
                lengths[tier] += 1
                break
            lengths[tier] = 1
        worth = weigh(lengths, tiers, produced, sure, table, bounds)
        if is_better(worth, best_worth, 1.0):
            best[:], best_worth[:] = lengths, worth


@compiled
def _improve(
    lengths: Integers,
    worth: FloatArray,
    tiers: FloatArray,
    produced: Produced,
    sure: Produced,
    table: FloatArray,
    bounds: FloatArray,
) -> bool:
    """Sets each tier in turn to its best length, in place. Returns whether any changed."""
    changed = False
    for tier in range(len(tiers)):
        if not tiers[tier, DECODING] > 0:
            continue
        kept = lengths[tier]
        for length in range(1, produced.shape[1] + 1):
            lengths[tier] = length
            found = weigh(lengths, tiers, produced, sure, table, bounds)
            if is_better(found, worth, 1.0):
                worth[:], kept, changed = found, length, True
        lengths[tier] = kept
    return changed


@inlined
def is_better(one: FloatArray, other: FloatArray, factor: float) -> bool:
    """Whether `one` violates the paces less than `other`, or equally and is worth more than
    `factor` times as much. Lengths that leave no time for prompts are worth nothing; any others
    are better, since their steps keep the paces on average.
    """
    if (one[WORTH] > 0) != (other[WORTH] > 0):
        return bool(one[WORTH] > 0)
    if abs(one[VIOLATION] - other[VIOLATION]) > _ROUNDING:
        return bool(one[VIOLATION] < other[VIOLATION])
    return bool(one[WORTH] > factor * other[WORTH] * (1 + _ROUNDING))


@compiled
def weigh(
    lengths: Integers,
    tiers: FloatArray,
    produced: Produced,
    sure: Produced,
    table: FloatArray,
    bounds: FloatArray,
) -> FloatArray:
    """Evaluates these lengths; the result holds VIOLATION to PREFILL_TOKENS.

    Worth is the work completed per second, in produced tokens, times the share of recent prompts
    that are in time beside such steps. Work is what the steps yield, but no more than their prefill
    tokens keep up with. Where paces leave room for only a part of the
    prefills, it is in proportion to prefill tokens per second (SLOs-Serve, section 4.3). Where
    nothing has to be prefilled, it is the tokens produced per second.

    Whether paces are kept is computed from `sure`. Where steps of all requests are too long for
    them, in plain decoding, and where prompts may not lengthen steps up to the paces, requests may
    skip steps.
    """
    shares = np.ones(len(tiers))
    pace_s = _allowed_s(lengths, tiers, sure)
    all_s = sure_s(table, step_of(lengths, shares, tiers))
    found = _weighed(lengths, shares, tiers, produced, all_s / pace_s - 1.0, table, bounds)
    most_s = min(pace_s, bounds[LONGEST_S])
    if pace_s < np.inf and (all_s > most_s or most_s < pace_s or lengths.max() == 1):
        _sit_out(shares, lengths, tiers, sure, most_s)
        some_s = sure_s(table, step_of(lengths, shares, tiers))
        fewer = _weighed(lengths, shares, tiers, produced, some_s / most_s - 1.0, table, bounds)
        if is_better(fewer, found, 1.0):
            return fewer
    return found


@compiled
def _weighed(
    lengths: Integers,
    shares: FloatArray,
    tiers: FloatArray,
    produced: Produced,
    too_long: float,
    table: FloatArray,
    bounds: FloatArray,
) -> FloatArray:
    """`weigh` with these `shares` of each tier in a step. Without prefills the step exceeds the
    tightest pace by `too_long` times that pace.
    """
    found, given = np.zeros(_FIELDS), 0.0
    for tier in range(len(tiers)):
        given += shares[tier] * tiers[tier, DECODING] * produced[tier, lengths[tier] - 1]
    counts = step_of(lengths, shares, tiers)
    room = bounds[MOST_TOKENS] - np.ceil(counts[DECODES] + counts[SPECULATED] - _ROUNDING)
    found[VIOLATION] = max(0.0, too_long) if room >= 0 else np.inf
    until_s, each = _allowed_s(lengths, tiers, produced), bounds[PROMPT_TOKENS_EACH]
    until_s = min(until_s, bounds[LONGEST_S])
    wanted = max(0.0, min(room, np.ceil(each * given)) if each < np.inf else room)
    tokens = _room(table, counts, until_s, int(wanted))
    step_s = float(sure_s(table, counts))
    found[STEP_S], found[PREFILL_TOKENS] = step_s, tokens
    if step_s > 0:
        kept_up_with = tokens / each if 0 < each < np.inf else given
        done = tokens if each == np.inf else min(given, kept_up_with)
        found[WORTH] = done / step_s * _in_time(bounds, step_s)
    return found


@compiled
def _in_time(bounds: FloatArray, step_s: float) -> float:
    """The share of recent prompts that would be in time where steps last so long: one that comes
    during a step waits between 0 and `step_s`, all equally likely. 1 where none ever is.
    """
    of_all, in_time = 0.0, 0.0
    for k in range(BOUNDS, len(bounds), 2):
        of_all += bounds[k]
        in_time += bounds[k] * min(1.0, max(0.0, bounds[k + 1] / step_s))
    return in_time / of_all if in_time > 0 else 1.0


@compiled
def step_of(lengths: Integers, shares: FloatArray, tiers: FloatArray) -> FloatArray:
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


@inlined
def _is_paced(tiers: FloatArray, tier: int) -> bool:
    return bool(tiers[tier, DECODING] > 0 and tiers[tier, TPOT_S] < np.inf)


@inlined
def _allowed_s(lengths: Integers, tiers: FloatArray, produced: Produced) -> float:
    """The longest step with which every paced tier keeps its pace; infinite without such a tier."""
    allowed_s = np.inf
    for tier in range(len(tiers)):
        if _is_paced(tiers, tier):
            wait_s = tiers[tier, TPOT_S] * produced[tier, lengths[tier] - 1]
            allowed_s = min(allowed_s, wait_s)
    return float(allowed_s)


@compiled
def _sit_out(
    shares: FloatArray, lengths: Integers, tiers: FloatArray, produced: Produced, pace_s: float
) -> None:
    """Sets the share of steps of `pace_s` that each tier needs for its pace; 0 without a pace."""
    for tier in range(len(tiers)):
        wait_s = tiers[tier, TPOT_S] * produced[tier, lengths[tier] - 1]
        shares[tier] = pace_s / wait_s if wait_s < np.inf else 0.0


@compiled
def _with_chunk(table: FloatArray, counts: FloatArray, tokens: int) -> float:
    """Seconds of the step with one chunk of a fresh prompt, which is written to `counts`."""
    counts[CHUNKS] = 1.0 if tokens > 0 else 0.0
    counts[PREFILL] = tokens
    counts[PAIRS] = tokens * tokens / 2.0
    counts[LONGEST_PROMPT] = tokens
    return float(sure_s(table, counts))


@compiled
def _room(table: FloatArray, counts: FloatArray, until_s: float, most_tokens: int) -> int:
    """The chunk within `until_s` and `most_tokens` with the most prefill tokens per second; 0 where
    there is none. Writes it to `counts`.

    Times are convex in the chunk, so the tokens per second rise and then fall.
    """
    low, high = 0, max(0, most_tokens)
    while low < high:
        middle = (low + high + 1) // 2
        if _with_chunk(table, counts, middle) <= until_s:
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
