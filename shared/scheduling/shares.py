"""Gives one request tokens of a step and takes them off the step's limits. Compiled."""

from typing import Final

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import (
    CHUNKS,
    DECODE_CONTEXT,
    DECODES,
    EARLIER,
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
from shared.scheduling.rows import (
    COMPUTED,
    DRAFT,
    KIND,
    NO_SLO,
    RESIDENT,
    SHARED,
    TOKENS_PER_STEP,
    TOTAL,
    TPOT,
    Rows,
)

Tokens = npt.NDArray[np.int64]
WorkClasses = npt.NDArray[np.int8]
Order = npt.NDArray[np.intp]
ONE: Final = 1.5  # a row with at most this many tokens left to compute counts as a decode
EVICT: Final = -1  # in the place of a number of tokens: drop the row's KV

# Limits of an engine, in one array. Blocks SET_ASIDE are for promised requests with KV that waits
# elsewhere for room: best effort frees them and takes none. The same holds for blocks KEPT, which
# cache prefixes for sessions that return, but only while promised requests are there.
MAX_TOKENS, LONGEST_S, FREE_BLOCKS, BLOCK_TOKENS, MAX_RESIDENT, SET_ASIDE, KEPT = range(7)
LIMITS: Final = 7


@inlined
def add_decode(counts: FloatArray, rows: Rows, i: int) -> None:
    counts[DECODES] += 1
    counts[SPECULATED] += rows[i, DRAFT]
    counts[SPECULATION_STEPS] = max(counts[SPECULATION_STEPS], rows[i, DRAFT])
    counts[DECODE_CONTEXT] += rows[i, COMPUTED]
    counts[LONGEST_CONTEXT] = max(counts[LONGEST_CONTEXT], rows[i, COMPUTED])


@compiled
def add_decodes(counts: FloatArray, rows: Rows, those: Order) -> None:
    """`add_decode` of each of them, in this order: sums of fractions depend on it."""
    decodes, speculated, context = counts[DECODES], counts[SPECULATED], counts[DECODE_CONTEXT]
    drafts, longest = counts[SPECULATION_STEPS], counts[LONGEST_CONTEXT]
    for i in those:
        decodes += 1
        speculated += rows[i, DRAFT]
        drafts = max(drafts, rows[i, DRAFT])
        context += rows[i, COMPUTED]
        longest = max(longest, rows[i, COMPUTED])
    counts[DECODES], counts[SPECULATED], counts[DECODE_CONTEXT] = decodes, speculated, context
    counts[SPECULATION_STEPS], counts[LONGEST_CONTEXT] = drafts, longest


@inlined
def add_chunk(counts: FloatArray, rows: Rows, i: int, size: float) -> None:
    counts[CHUNKS] += 1
    counts[PREFILL] += size
    counts[EARLIER] += rows[i, COMPUTED]
    counts[PAIRS] += size * (rows[i, COMPUTED] + size / 2)
    counts[LONGEST_PROMPT] = max(counts[LONGEST_PROMPT], rows[i, COMPUTED] + size)


@inlined
def missing(rows: Rows, i: int) -> float:
    """Tokens of its prompt that are still to compute."""
    # A simulated row may have fractions of tokens: means of what drafts yield.
    return float(np.ceil(rows[i, TOTAL] - rows[i, COMPUTED]))


@inlined
def step_pace_s(rows: Rows, i: int) -> float:
    """Seconds from one step of a row to its next; with drafts a step yields more than a token."""
    gain = rows[i, TOKENS_PER_STEP] if rows[i, DRAFT] > 0 else 1.0
    return float(rows[i, TPOT] * gain)


@inlined
def give_decode(
    rows: Rows, work: WorkClasses, tokens: Tokens, counts: FloatArray, left: FloatArray, i: int
) -> None:
    size = 1 + rows[i, DRAFT]
    if left[MAX_TOKENS] >= size and take(rows, work, tokens, left, i, size):
        tokens[i] = int(size)
        add_decode(counts, rows, i)


@compiled
def give_chunk(
    rows: Rows,
    work: WorkClasses,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    left: FloatArray,
    i: int,
    until_s: float,
) -> bool:
    """Gives the longest chunk that ends in time. Returns whether it was all of the prompt."""
    whole = missing(rows, i)
    size = min(whole, np.floor(left[MAX_TOKENS]))
    if until_s < np.inf:
        size = longest_chunk(rows, i, counts, table, until_s, size)
    if size < 1 or not take(rows, work, tokens, left, i, size):
        return False
    tokens[i] = int(size)
    add_chunk(counts, rows, i, size)
    return bool(size >= whole)


@compiled
def longest_chunk(
    rows: Rows, i: int, counts: FloatArray, table: FloatArray, until_s: float, most: float
) -> float:
    """Tokens of the longest chunk with which the step still ends in time, by bisection."""
    low, high = 0.0, most
    more = counts.copy()
    add_chunk(more, rows, i, high)
    if sure_s(table, more) <= until_s:
        return high
    while high - low > 1:
        middle = np.floor((low + high) / 2)
        more[:] = counts
        add_chunk(more, rows, i, middle)
        if sure_s(table, more) <= until_s:
            low = middle
        else:
            high = middle
    return low


@inlined
def take(
    rows: Rows, work: WorkClasses, tokens: Tokens, left: FloatArray, i: int, size: float
) -> bool:
    """Takes the request's place, blocks and tokens off what is left; returns False where it cannot.

    A prompt begins only where all of it has room.
    """
    place = 1.0 - rows[i, RESIDENT]
    need = 0.0
    if left[FREE_BLOCKS] < np.inf:
        until = rows[i, COMPUTED] + size
        if place > 0:  # drafts may reach beyond the end of KV that came from elsewhere
            until = max(until, rows[i, TOTAL])
        need = own_blocks(rows, i, until, left) - held_blocks(rows, i, left)
    promised = rows[i, KIND] <= NO_SLO
    others = 0.0 if promised or need == 0 else left[SET_ASIDE]
    while left[FREE_BLOCKS] < need + others or left[MAX_RESIDENT] < place:
        if not promised or not evict_one(rows, work, tokens, left):
            return False
    left[FREE_BLOCKS] -= need
    left[MAX_RESIDENT] -= place
    left[MAX_TOKENS] -= size
    return True


@compiled
def evict_one(rows: Rows, work: WorkClasses, tokens: Tokens, left: FloatArray) -> bool:
    """Drops the KV of one row of best effort or EXPIRED. Returns whether there was one."""
    victim = _victim(rows, work, tokens, left)
    if victim < 0:
        return False
    evict(rows, tokens, left, victim)
    return True


@compiled
def evict(rows: Rows, tokens: Tokens, left: FloatArray, i: int) -> None:
    tokens[i] = EVICT
    left[FREE_BLOCKS] += held_blocks(rows, i, left)
    left[MAX_RESIDENT] += rows[i, RESIDENT]


@inlined
def blocks_of(tokens: float, left: FloatArray) -> float:
    return float(np.ceil(tokens / left[BLOCK_TOKENS]))


@inlined
def held_blocks(rows: Rows, i: int, left: FloatArray) -> float:
    """KV blocks that a row alone holds."""
    return own_blocks(rows, i, rows[i, COMPUTED], left) if holds_kv(rows, i) else 0.0


@inlined
def own_blocks(rows: Rows, i: int, tokens: float, left: FloatArray) -> float:
    """KV blocks of a row's first `tokens`, without those that other running requests hold."""
    return blocks_of(tokens, left) - shared_blocks(rows, i, left[BLOCK_TOKENS])


@inlined
def shared_blocks(rows: Rows, i: int, block_tokens: float) -> float:
    return float(min(rows[i, SHARED], rows[i, COMPUTED]) // block_tokens)


@inlined
def holds_kv(rows: Rows, i: int) -> bool:
    """Whether a row holds the KV of what it has computed. Prefix-cache hits of a prompt that has
    not begun stay free for others until it begins; KV that came from another engine does not.
    """
    return bool(rows[i, RESIDENT] > 0 or rows[i, TOTAL] - rows[i, COMPUTED] <= ONE)


@compiled
def _victim(rows: Rows, work: WorkClasses, tokens: Tokens, left: FloatArray) -> int:
    """The row to evict: best effort before EXPIRED, then the one that frees the most blocks for
    each token to compute again, then the later one; -1: none.
    """
    best, best_worth = -1, (0.0, 0.0)
    for i in range(len(rows)):
        if rows[i, KIND] <= NO_SLO or rows[i, RESIDENT] == 0 or tokens[i] != 0 or work[i] < 0:
            continue
        frees = held_blocks(rows, i, left) / max(1.0, rows[i, COMPUTED] - rows[i, SHARED])
        worth = (rows[i, KIND], frees)
        if worth >= best_worth:
            best, best_worth = i, worth
    return best
