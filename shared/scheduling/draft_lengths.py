"""What draft lengths are worth to the requests of an engine, and the lengths that are worth most.
Compiled.

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
# What bounds a step, in one array: its tokens, and the prompt tokens that the requests need to have
# computed for each token that they produce, inf for as many as there is room for.
MOST_TOKENS, PROMPT_TOKENS_EACH = range(2)
# What a choice of lengths comes to: by how much of the least pace its steps without prefills are
# too long, its worth, and the seconds and prefill tokens of its steps.
VIOLATION, WORTH, STEP_S, PREFILL_TOKENS = range(4)
_FIELDS: Final = 4
_FEW: Final = 256.0  # choices that are all looked at: less than a millisecond
_MOST_ROUNDS: Final = 4  # over all tiers; a choice settles after two or three
_ROUNDING: Final = 1e-9


@compiled
def best_lengths(
    tiers: Numbers, produced: Produced, sure: Produced, table: Numbers, bounds: Numbers
) -> Integers:
    """The lengths worth most, of all that there are where these are few; else by coordinate ascent,
    one tier after the other, from each length that is the same for all. No tier that is empty
    drafts.
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
    best_worth: Numbers,
    busy: npt.NDArray[np.intp],
    tiers: Numbers,
    produced: Produced,
    sure: Produced,
    table: Numbers,
    bounds: Numbers,
) -> None:
    """Leaves the lengths worth most in `best`: counts through them as through digits."""
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
    worth: Numbers,
    tiers: Numbers,
    produced: Produced,
    sure: Produced,
    table: Numbers,
    bounds: Numbers,
) -> bool:
    """The best length of each tier in turn, in place; whether any changed."""
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


@compiled
def is_better(one: Numbers, other: Numbers, factor: float) -> bool:
    """Whether `one` comes closer to all paces, or keeps them as well and is worth more than
    `factor` times as much.
    """
    if abs(one[VIOLATION] - other[VIOLATION]) > _ROUNDING:
        return bool(one[VIOLATION] < other[VIOLATION])
    return bool(one[WORTH] > factor * other[WORTH] * (1 + _ROUNDING))


@compiled
def weigh(
    lengths: Integers,
    tiers: Numbers,
    produced: Produced,
    sure: Produced,
    table: Numbers,
    bounds: Numbers,
) -> Numbers:
    """What these lengths come to, as `VIOLATION` to `PREFILL_TOKENS` say.

    Worth is the work of the requests that a second completes, counted in tokens that they produce:
    as many as its steps give, or as its prefill tokens keep up with. Where paces leave room for
    less than all prefills, it is in proportion to prefill tokens a second (SLOs-Serve, section
    4.3); where nothing has to be prefilled, it is the tokens produced a second.

    Paces are held by `sure`. Where steps of all are too long for them, and in plain decoding,
    looser tiers may sit out steps.
    """
    shares = np.ones(len(tiers))
    pace_s = _allowed_s(lengths, tiers, sure)
    all_s = sure_s(table, step_of(lengths, shares, tiers))
    found = _weighed(lengths, shares, tiers, produced, all_s / pace_s - 1.0, table, bounds)
    if pace_s < np.inf and (all_s > pace_s or lengths.max() == 1):
        _sit_out(shares, lengths, tiers, sure, pace_s)
        some_s = sure_s(table, step_of(lengths, shares, tiers))
        fewer = _weighed(lengths, shares, tiers, produced, some_s / pace_s - 1.0, table, bounds)
        if is_better(fewer, found, 1.0):
            return fewer
    return found


@compiled
def _weighed(
    lengths: Integers,
    shares: Numbers,
    tiers: Numbers,
    produced: Produced,
    too_long: float,
    table: Numbers,
    bounds: Numbers,
) -> Numbers:
    """The same with these `shares` of each tier in a step, which is `too_long` by such a part of
    the least pace without prefills.
    """
    found, given = np.zeros(_FIELDS), 0.0
    for tier in range(len(tiers)):
        given += shares[tier] * tiers[tier, DECODING] * produced[tier, lengths[tier] - 1]
    counts = step_of(lengths, shares, tiers)
    room = bounds[MOST_TOKENS] - np.ceil(counts[DECODES] + counts[SPECULATED] - _ROUNDING)
    found[VIOLATION] = max(0.0, too_long) if room >= 0 else np.inf
    until_s, each = _allowed_s(lengths, tiers, produced), bounds[PROMPT_TOKENS_EACH]
    wanted = max(0.0, min(room, np.ceil(each * given)) if each < np.inf else room)
    tokens = _room(table, counts, until_s, int(wanted))
    step_s = float(sure_s(table, counts))
    found[STEP_S], found[PREFILL_TOKENS] = step_s, tokens
    if step_s > 0:
        kept_up_with = tokens / each if 0 < each < np.inf else given
        done = tokens if each == np.inf else min(given, kept_up_with)
        found[WORTH] = done / step_s
    return found


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
def _is_paced(tiers: Numbers, tier: int) -> bool:
    return bool(tiers[tier, DECODING] > 0 and tiers[tier, TPOT_S] < np.inf)


@compiled
def _allowed_s(lengths: Integers, tiers: Numbers, produced: Produced) -> float:
    """As long as each paced tier can wait for what a step yields it; infinite without one."""
    allowed_s = np.inf
    for tier in range(len(tiers)):
        if _is_paced(tiers, tier):
            wait_s = tiers[tier, TPOT_S] * produced[tier, lengths[tier] - 1]
            allowed_s = min(allowed_s, wait_s)
    return float(allowed_s)


@compiled
def _sit_out(
    shares: Numbers, lengths: Integers, tiers: Numbers, produced: Produced, pace_s: float
) -> None:
    """Each tier takes part in as many steps of `pace_s` as its pace asks for, one without a pace in
    none.
    """
    for tier in range(len(tiers)):
        wait_s = tiers[tier, TPOT_S] * produced[tier, lengths[tier] - 1]
        shares[tier] = pace_s / wait_s if wait_s < np.inf else 0.0


@compiled
def _with_chunk(table: Numbers, counts: Numbers, tokens: int) -> float:
    """Seconds of the step when `counts` has one chunk of a prompt, from its start."""
    counts[CHUNKS] = 1.0 if tokens > 0 else 0.0
    counts[PREFILL] = tokens
    counts[PAIRS] = tokens * tokens / 2.0
    counts[LONGEST_PROMPT] = tokens
    return float(sure_s(table, counts))


@compiled
def _room(table: Numbers, counts: Numbers, until_s: float, most_tokens: int) -> int:
    """The chunk within `until_s` and `most_tokens` that computes most prefill tokens a second; 0
    when there is none. Leaves it in `counts`.

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
