"""Forms steps by gain, as JITServe does (arXiv 2504.20068, also called Tempo, and its authors'
code). Running requests go on. Waiting prompts begin by their gain per second of work left, in
groups of similar length where not all have a place (GMAX). Compiled.
"""

import numpy as np
import numpy.typing as npt

from services.evaluation.baselines.room import (
    begin,
    can_run,
    decodes,
    finish,
    try_chunk,
    try_decode,
)
from shared.batch_time.table import COUNTS, DECODES, FloatArray, expected_s
from shared.compiled import compiled
from shared.scheduling.rows import (
    COMPUTED,
    DEADLINE,
    GENERATED,
    KEY,
    REMAINING,
    RESIDENT,
    TOTAL,
    TPOT,
    Rows,
)
from shared.scheduling.shares import MAX_RESIDENT, MAX_TOKENS, Tokens, add_chunk, add_decode

Order = npt.NDArray[np.intp]
GRAIN_TOKENS = 50.0  # produced tokens after which a length is predicted again
_OUTPUT_WEIGHT = 8.0  # weight of a token of the answer, relative to one of the prompt
_LEAST_RATIO = 1e-6  # floor of the factor on a late gain, so that lost requests still have an order
_CUTOFF = 0.95  # of the gain of the last one with a place: prompts above it compete for the places


@compiled
def form(
    rows: Rows,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    limits: FloatArray,
    now: float,
    lengths: FloatArray,
    tokens_per_step: float,
    by_request: bool,
) -> float:
    """As `shared.scheduling.kernel.form`; MAX_TOKENS of `limits` is the budget.

    `lengths`: the predicted tokens of an answer, of shape (classes, grains produced); KEY is the
    class. `tokens_per_step`: tokens that a decode yields. `by_request`: each request in time gains
    1, instead of its tokens.
    """
    left = begin(rows, tokens, limits)
    step_s = _decode_step_s(rows, table, now) / tokens_per_step
    gains = np.zeros(len(rows))
    for i in range(len(rows)):
        gains[i] = _gain_per_s(rows, i, table, lengths, step_s, by_request, now)
    ranks = -gains  # the least gain is evicted first
    order = np.argsort(ranks, kind="mergesort")
    for i in order:
        if tokens[i] == 0 and decodes(rows, i) and can_run(rows, i, now):
            try_decode(rows, tokens, left, ranks, i)
    for i in order:
        if rows[i, RESIDENT] > 0 and not decodes(rows, i) and can_run(rows, i, now):
            try_chunk(rows, tokens, left, ranks, i, left[MAX_TOKENS])
    for i in _group(rows, tokens, gains, order, int(left[MAX_RESIDENT]), now):
        try_chunk(rows, tokens, left, ranks, i, left[MAX_TOKENS])
    return float(finish(rows, tokens, counts, table, limits, now))


@compiled
def _decode_step_s(rows: Rows, table: FloatArray, now: float) -> float:
    """Seconds of a step of all running decodes, or of one decode without context."""
    counts = np.zeros(COUNTS)
    for i in range(len(rows)):
        if rows[i, RESIDENT] > 0 and decodes(rows, i) and can_run(rows, i, now):
            add_decode(counts, rows, i)
    counts[DECODES] = max(1.0, counts[DECODES])
    return expected_s(table, counts)


@compiled
def _gain_per_s(
    rows: Rows,
    i: int,
    table: FloatArray,
    lengths: FloatArray,
    step_s: float,
    by_request: bool,
    now: float,
) -> float:
    """The gain left in a row, over the seconds that its prompt and its answer still take."""
    prompt_s, first = 0.0, 1.0
    if not decodes(rows, i):
        counts = np.zeros(COUNTS)
        add_chunk(counts, rows, i, rows[i, TOTAL] - rows[i, COMPUTED])
        prompt_s = expected_s(table, counts)
        first = _ratio(rows[i, DEADLINE] - now, prompt_s)
    answer = _answer_tokens(rows, i, lengths)
    needs_s = prompt_s + answer * step_s
    last = _ratio(rows[i, DEADLINE] - now + answer * rows[i, TPOT], needs_s)
    if by_request:
        return float(min(first, last) / needs_s)
    gain = _OUTPUT_WEIGHT * answer * last
    if not decodes(rows, i):
        gain += rows[i, TOTAL] * first
    return float(gain / needs_s)


@compiled
def _answer_tokens(rows: Rows, i: int, lengths: FloatArray) -> float:
    """The tokens still to come, as predicted."""
    grain = min(int(rows[i, GENERATED] / GRAIN_TOKENS), lengths.shape[1] - 1)
    whole = lengths[min(int(rows[i, KEY]), lengths.shape[0] - 1), grain]
    return float(max(1.0, min(whole - rows[i, GENERATED], rows[i, REMAINING])))


@compiled
def _ratio(has_s: float, needs_s: float) -> float:
    """The factor on a gain that comes late."""
    if has_s >= needs_s:
        return 1.0
    return float(max(_LEAST_RATIO, has_s / needs_s))


@compiled
def _group(
    rows: Rows, tokens: Tokens, gains: FloatArray, order: Order, places: int, now: float
) -> Order:
    """The waiting prompts that begin, by gain: all, or among those above the cut-off the `places`
    of similar length with the greatest total gain.
    """
    waiting = np.empty(len(rows), dtype=np.intp)
    number = 0
    for i in order:
        waits = rows[i, RESIDENT] == 0 and tokens[i] == 0 and can_run(rows, i, now)
        if waits and not decodes(rows, i):
            waiting[number] = i
            number += 1
    waiting = waiting[:number]
    if number <= places or places == 0:
        return waiting[: min(number, places)]
    near = waiting[gains[waiting] >= _CUTOFF * gains[waiting[places - 1]]]
    by_length = near[np.argsort(rows[near, TOTAL] - rows[near, COMPUTED], kind="mergesort")]
    sums = np.cumsum(gains[by_length])
    best, most = 0, sums[places - 1]
    for first in range(1, len(near) - places + 1):
        together = sums[first + places - 1] - sums[first - 1]
        if together > most:
            best, most = first, together
    group = by_length[best : best + places]
    by_gain: Order = group[np.argsort(-gains[group], kind="mergesort")]
    return by_gain
