"""Who gets how many tokens in one engine step: compiled code over rows, used by the engine, by the
planner's simulation and by anybody who wants to know what an engine would do. Keeps nothing.

The order of service follows the cumulative deadlines of the paper's demand lines (arXiv 2504.08784,
Algorithm 2), with steps as long as the next deadline allows rather than as the tightest pace.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import (
    CHUNKS,
    COUNTS,
    DECODE_CONTEXT,
    DECODES,
    EARLIER,
    LONGEST_CONTEXT,
    LONGEST_PROMPT,
    PAIRS,
    PREFILL,
    SPECULATED,
    SPECULATION_STEPS,
    Numbers,
    expected_s,
    sure_s,
)
from shared.compiled import compiled
from shared.scheduling.rows import (
    AVAILABLE,
    BEST_EFFORT,
    COMPUTED,
    DRAFT,
    DUE,
    KIND,
    LEFT,
    LOST,
    PLAIN,
    PRODUCED,
    PROMISED,
    RESIDENT,
    TOTAL,
    TPOT,
    Rows,
)

Tokens = npt.NDArray[np.int64]
EVICT: Final = -1  # in the place of a number of tokens: drop its KV

# Limits of an engine, in one array.
MAX_TOKENS, LONGEST_S, FREE_BLOCKS, BLOCK_TOKENS, MAX_RESIDENT = range(5)
LIMITS: Final = 5

_CATCH_UP = 0.8  # a late request is brought back by steps of at most this share of its pace
_GIVEN_UP = 4.0  # beyond so many paces of lateness the lost time is written off
_COMPANY = 4.0  # a prompt that ends in a step waits for others up to so many steps without prompts
_SMALLEST_CHUNK = 16  # that the first in line gets even where no time is left for it


@compiled
def settle_lost(rows: Rows, table: Numbers, now: float) -> int:
    """Takes promises that cannot be kept any more out of the way of the others.

    A first token that would be late even if the engine did nothing else makes its request LOST. A
    request that is far behind its pace starts anew from here. Returns how many were settled.
    """
    settled = 0
    for i in range(len(rows)):
        row = rows[i]
        if row[KIND] != PROMISED or row[AVAILABLE] > now or row[DUE] == np.inf:
            continue
        if row[PRODUCED] == 0:
            if now + _prompt_s(row, table) > row[DUE]:
                row[KIND] = LOST
                settled += 1
        elif now > row[DUE] + _GIVEN_UP * row[TPOT]:
            row[DUE] = now
            settled += 1
    return settled


@compiled
def form(
    rows: Rows, tokens: Tokens, counts: Numbers, table: Numbers, limits: Numbers, now: float
) -> float:
    """Fills `tokens` (one for each row; EVICT drops its KV) and `counts` (those of the step).

    Returns the seconds within which the step surely ends, 0 when there is nothing to do.
    """
    tokens[:] = 0
    counts[:] = 0.0
    left = limits.copy()
    for i in range(len(rows)):
        left[MAX_RESIDENT] -= rows[i, RESIDENT]
    until_s = _promised_decodes(rows, tokens, counts, table, left, now)
    until_s = _promised_prompts(rows, tokens, counts, table, left, now, until_s)
    for kind in (PLAIN, LOST, BEST_EFFORT):
        _rest_of_kind(rows, tokens, counts, table, left, now, until_s, kind)
    if counts[DECODES] + counts[PREFILL] == 0:
        _at_least_one(rows, tokens, counts, left, now)
    if counts[DECODES] + counts[PREFILL] == 0:
        return 0.0
    return sure_s(table, counts)


@compiled
def _runs(row: Numbers, kind: float, now: float) -> bool:
    return bool(row[KIND] == kind and row[AVAILABLE] <= now and row[LEFT] > 0)


@compiled
def _decodes(row: Numbers) -> bool:
    """One token is to be computed; whether of a prompt is no matter."""
    return bool(row[TOTAL] - row[COMPUTED] <= 1.5)


@compiled
def _hurry_s(row: Numbers, now: float, table: Numbers) -> float:
    """How long a step may last that gives this request its next token.

    One that is late whatever is done is brought back bit by bit, not at the cost of all others.
    """
    counts = np.zeros(COUNTS)
    _add_decode(counts, row)
    in_time = row[DUE] - now >= sure_s(table, counts)
    return float(row[DUE] - now if in_time else _CATCH_UP * row[TPOT])


@compiled
def _promised_decodes(
    rows: Rows, tokens: Tokens, counts: Numbers, table: Numbers, left: Numbers, now: float
) -> float:
    """Gives a token to each that could not be on time any more if it waited for the next step.

    Returns the seconds that this step may last.
    """
    everyone = np.zeros(len(counts))
    until_s = np.inf
    prompts_wait = False
    for i in range(len(rows)):
        if not _runs(rows[i], PROMISED, now):
            continue
        if _decodes(rows[i]):
            _add_decode(everyone, rows[i])
            until_s = min(until_s, _hurry_s(rows[i], now, table))
        else:
            prompts_wait = True
    if everyone[DECODES] == 0:
        return _bounded(until_s, left)
    all_s = sure_s(table, everyone)
    may_wait_s = np.inf
    if prompts_wait or all_s > until_s:
        may_wait_s = max(until_s, 0.0) + all_s
    for i in range(len(rows)):
        hurries = may_wait_s == np.inf or rows[i, DUE] - now < may_wait_s
        if hurries and _runs(rows[i], PROMISED, now) and _decodes(rows[i]):
            _give_decode(rows, tokens, counts, left, i, now)
    return _bounded(until_s, left)


@compiled
def _bounded(until_s: float, left: Numbers) -> float:
    if left[LONGEST_S] > 0:
        return float(min(until_s, left[LONGEST_S]))
    return until_s


@compiled
def _promised_prompts(
    rows: Rows,
    tokens: Tokens,
    counts: Numbers,
    table: Numbers,
    left: Numbers,
    now: float,
    until_s: float,
) -> float:
    """Prompts by deadline; a decode that can wait comes before those that are due after it.

    Returns how long the step may last now that some of the prompts end in it.
    """
    share = 1.0 if _overloaded(rows, table, now) else 0.0
    while True:
        first = _first_prompt(rows, tokens, table, now, share)
        due_s = rows[first, DUE] if first >= 0 else np.inf
        _decodes_before(rows, tokens, counts, table, left, now, until_s, due_s)
        if first < 0 or not _give_chunk(rows, tokens, counts, table, left, first, now, until_s):
            return until_s
        ready_s = sure_s(table, counts)
        company_s = max(ready_s, _COMPANY * _alone_s(counts, table))
        until_s = min(until_s, max(ready_s, min(due_s - now, company_s)))


@compiled
def _overloaded(rows: Rows, table: Numbers, now: float) -> bool:
    """Whether the prompts that wait cannot all be on time even with the engine to themselves."""
    shared_s = expected_s(table, np.zeros(COUNTS))  # prompts may go together
    for j in range(len(rows)):
        if not _runs(rows[j], PROMISED, now) or _decodes(rows[j]) or rows[j, DUE] == np.inf:
            continue
        work_s = 0.0
        for i in range(len(rows)):
            before = rows[i, DUE] <= rows[j, DUE] and _runs(rows[i], PROMISED, now)
            if before and not _decodes(rows[i]):
                work_s += _prompt_s(rows[i], table) - shared_s
        if now + shared_s + work_s > rows[j, DUE]:
            return True
    return False


@compiled
def _first_prompt(rows: Rows, tokens: Tokens, table: Numbers, now: float, share: float) -> int:
    """The one that is due first; `share` of 1 adds the work that is left to what is compared, so
    that under overload short prompts are not lost behind long ones (QoServe, arXiv 2503.22562).
    """
    first, least_s = -1, np.inf
    for i in range(len(rows)):
        if tokens[i] != 0 or not _runs(rows[i], PROMISED, now) or _decodes(rows[i]):
            continue
        rank_s = rows[i, DUE] + (share * _prompt_s(rows[i], table) if share > 0 else 0.0)
        if first < 0 or rank_s < least_s:
            first, least_s = i, rank_s
    return first


@compiled
def _prompt_s(row: Numbers, table: Numbers) -> float:
    """The rest of a prompt in one step of its own."""
    counts = np.zeros(COUNTS)
    _add_chunk(counts, row, row[TOTAL] - row[COMPUTED])
    return expected_s(table, counts)


@compiled
def _alone_s(counts: Numbers, table: Numbers) -> float:
    """The step without its prompts."""
    decodes = counts.copy()
    decodes[CHUNKS] = decodes[PREFILL] = decodes[EARLIER] = 0.0
    decodes[PAIRS] = decodes[LONGEST_PROMPT] = 0.0
    return sure_s(table, decodes)


@compiled
def _decodes_before(
    rows: Rows,
    tokens: Tokens,
    counts: Numbers,
    table: Numbers,
    left: Numbers,
    now: float,
    until_s: float,
    due_s: float,
) -> None:
    """Those that could have waited, as far as the time reaches."""
    for i in range(len(rows)):
        candidate = tokens[i] == 0 and rows[i, DUE] <= due_s and _runs(rows[i], PROMISED, now)
        if candidate and _decodes(rows[i]) and _decode_fits(rows[i], counts, table, until_s):
            _give_decode(rows, tokens, counts, left, i, now)


@compiled
def _rest_of_kind(
    rows: Rows,
    tokens: Tokens,
    counts: Numbers,
    table: Numbers,
    left: Numbers,
    now: float,
    until_s: float,
    kind: float,
) -> None:
    """From what time is left: decodes, then prompts in the order in which they came."""
    full = False
    for i in range(len(rows)):
        if tokens[i] == 0 and _runs(rows[i], kind, now) and _decodes(rows[i]):
            if not full and until_s < np.inf:
                full = not _decode_fits(rows[i], counts, table, until_s)
            if not full:
                _give_decode(rows, tokens, counts, left, i, now)
    if not _prompt_is_left(rows, tokens, kind, now):
        return
    for i in np.argsort(rows[:, AVAILABLE], kind="mergesort"):
        if left[MAX_TOKENS] < 1:
            return
        if tokens[i] == 0 and _runs(rows[i], kind, now) and not _decodes(rows[i]):
            _give_chunk(rows, tokens, counts, table, left, i, now, until_s)
            if tokens[i] <= 0 and until_s < np.inf and left[FREE_BLOCKS] > 0:
                return


@compiled
def _prompt_is_left(rows: Rows, tokens: Tokens, kind: float, now: float) -> bool:
    for i in range(len(rows)):
        if tokens[i] == 0 and _runs(rows[i], kind, now) and not _decodes(rows[i]):
            return True
    return False


@compiled
def _at_least_one(rows: Rows, tokens: Tokens, counts: Numbers, left: Numbers, now: float) -> None:
    """An engine never stands still: the first in line gets a little where nothing is in time."""
    best = -1
    for i in range(len(rows)):
        if tokens[i] != 0 or not _runs(rows[i], rows[i, KIND], now):
            continue
        if best < 0 or (rows[i, KIND], rows[i, DUE]) < (rows[best, KIND], rows[best, DUE]):
            best = i
    if best < 0:
        return
    if _decodes(rows[best]):
        _give_decode(rows, tokens, counts, left, best, now)
        return
    size = min(float(_SMALLEST_CHUNK), rows[best, TOTAL] - rows[best, COMPUTED])
    if _take(rows, tokens, left, best, size, now):
        tokens[best] = int(size)
        _add_chunk(counts, rows[best], size)


# ---- one request


@compiled
def _add_decode(counts: Numbers, row: Numbers) -> None:
    counts[DECODES] += 1
    counts[SPECULATED] += row[DRAFT]
    counts[SPECULATION_STEPS] = max(counts[SPECULATION_STEPS], row[DRAFT])
    counts[DECODE_CONTEXT] += row[COMPUTED]
    counts[LONGEST_CONTEXT] = max(counts[LONGEST_CONTEXT], row[COMPUTED])


@compiled
def _add_chunk(counts: Numbers, row: Numbers, size: float) -> None:
    counts[CHUNKS] += 1
    counts[PREFILL] += size
    counts[EARLIER] += row[COMPUTED]
    counts[PAIRS] += size * (row[COMPUTED] + size / 2)
    counts[LONGEST_PROMPT] = max(counts[LONGEST_PROMPT], row[COMPUTED] + size)


@compiled
def _decode_fits(row: Numbers, counts: Numbers, table: Numbers, until_s: float) -> bool:
    more = counts.copy()
    _add_decode(more, row)
    return sure_s(table, more) <= until_s


@compiled
def _give_decode(
    rows: Rows, tokens: Tokens, counts: Numbers, left: Numbers, i: int, now: float
) -> None:
    size = 1 + rows[i, DRAFT]
    if left[MAX_TOKENS] >= size and _take(rows, tokens, left, i, size, now):
        tokens[i] = int(size)
        _add_decode(counts, rows[i])


@compiled
def _give_chunk(
    rows: Rows,
    tokens: Tokens,
    counts: Numbers,
    table: Numbers,
    left: Numbers,
    i: int,
    now: float,
    until_s: float,
) -> bool:
    """The longest chunk that ends in time. Returns whether it was all of the prompt."""
    whole = rows[i, TOTAL] - rows[i, COMPUTED]
    size = min(whole, left[MAX_TOKENS])
    if until_s < np.inf:
        size = _longest_chunk(rows[i], counts, table, until_s, size)
    if size < 1 or not _take(rows, tokens, left, i, size, now):
        return False
    tokens[i] = int(size)
    _add_chunk(counts, rows[i], size)
    return bool(size >= whole)


@compiled
def _longest_chunk(
    row: Numbers, counts: Numbers, table: Numbers, until_s: float, most: float
) -> float:
    low, high = 0.0, most
    more = counts.copy()
    _add_chunk(more, row, high)
    if sure_s(table, more) <= until_s:
        return high
    while high - low > 1:
        middle = np.floor((low + high) / 2)
        more[:] = counts
        _add_chunk(more, row, middle)
        if sure_s(table, more) <= until_s:
            low = middle
        else:
            high = middle
    return low


@compiled
def _take(rows: Rows, tokens: Tokens, left: Numbers, i: int, size: float, now: float) -> bool:
    """Takes the request's place, blocks and tokens off what is left, or says that it cannot."""
    need = _blocks(rows[i, COMPUTED] + size, left) - _blocks(rows[i, COMPUTED], left)
    place = 1.0 - rows[i, RESIDENT]
    while left[FREE_BLOCKS] < need or left[MAX_RESIDENT] < place:
        victim = _victim(rows, tokens, left, now) if rows[i, KIND] <= PLAIN else -1
        if victim < 0:
            return False
        tokens[victim] = EVICT
        left[FREE_BLOCKS] += _blocks(rows[victim, COMPUTED], left)
        left[MAX_RESIDENT] += rows[victim, RESIDENT]
    left[FREE_BLOCKS] -= need
    left[MAX_RESIDENT] -= place
    left[MAX_TOKENS] -= size
    return True


@compiled
def _blocks(tokens: float, left: Numbers) -> float:
    return float(np.ceil(tokens / left[BLOCK_TOKENS]))


@compiled
def _victim(rows: Rows, tokens: Tokens, left: Numbers, now: float) -> int:
    """Best effort that frees the most blocks for each token to compute again; later rows first."""
    best, best_worth = -1, 0.0
    for i in range(len(rows)):
        evictable = rows[i, KIND] > PLAIN and rows[i, RESIDENT] > 0 and tokens[i] == 0
        if not evictable or rows[i, AVAILABLE] > now:
            continue
        worth = _blocks(rows[i, COMPUTED], left) / max(1.0, rows[i, COMPUTED])
        if worth >= best_worth:
            best, best_worth = i, worth
    return best
