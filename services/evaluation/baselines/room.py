"""Gives out tokens, KV blocks and places of a step for baselines, and evicts where KV runs out.
Evicted requests are computed anew later. Compiled.
"""

import numpy as np

from shared.batch_time.table import DECODES, PREFILL, FloatArray, sure_s
from shared.compiled import compiled
from shared.scheduling.rows import (
    AVAILABLE,
    COMPUTED,
    DRAFT,
    GENERATED,
    REMAINING,
    RESIDENT,
    TOTAL,
    Rows,
)
from shared.scheduling.shares import (
    EVICT,
    FREE_BLOCKS,
    MAX_RESIDENT,
    MAX_TOKENS,
    ONE,
    Tokens,
    add_chunk,
    add_decode,
    held_blocks,
    own_blocks,
)


@compiled
def set_drafts(rows: Rows, drafts: float) -> None:
    """Sets the drafts of rows that have produced a token and have only the next one to compute."""
    for i in range(len(rows)):
        rows[i, DRAFT] = drafts if rows[i, GENERATED] > 0 and decodes(rows, i) else 0.0


@compiled
def begin(rows: Rows, tokens: Tokens, limits: FloatArray) -> FloatArray:
    """Clears `tokens`; returns what is left of the limits beside rows that have a place."""
    tokens[:] = 0
    left = limits.copy()
    for i in range(len(rows)):
        left[MAX_RESIDENT] -= rows[i, RESIDENT]
    return left


@compiled
def can_run(rows: Rows, i: int, now: float) -> bool:
    return bool(rows[i, REMAINING] > 0 and rows[i, AVAILABLE] <= now)


@compiled
def decodes(rows: Rows, i: int) -> bool:
    return bool(rows[i, TOTAL] - rows[i, COMPUTED] <= ONE)


@compiled
def size_of(rows: Rows, i: int) -> float:
    """All tokens that a row can use in one step."""
    if decodes(rows, i):
        return float(1.0 + rows[i, DRAFT])
    return float(rows[i, TOTAL] - rows[i, COMPUTED])


@compiled
def blocks_for(rows: Rows, i: int, size: float, left: FloatArray) -> float:
    """Blocks for `size` more tokens, beyond those that the row has."""
    whole = own_blocks(rows, i, rows[i, COMPUTED] + size, left)
    return float(whole - held_blocks(rows, i, left))


@compiled
def give(rows: Rows, tokens: Tokens, left: FloatArray, i: int, size: float) -> None:
    """Gives a row tokens, for which there must be room. Drafts that do not fit are not verified."""
    if decodes(rows, i):
        rows[i, DRAFT] = size - 1.0
    left[FREE_BLOCKS] -= blocks_for(rows, i, size, left)
    left[MAX_TOKENS] -= size
    left[MAX_RESIDENT] -= 1.0 - rows[i, RESIDENT]
    tokens[i] = int(size)


@compiled
def evict(rows: Rows, tokens: Tokens, left: FloatArray, i: int) -> None:
    """Takes back what a row was given in this step, and all that it had."""
    if tokens[i] > 0:
        left[FREE_BLOCKS] += blocks_for(rows, i, float(tokens[i]), left)
        left[MAX_TOKENS] += tokens[i]
    if tokens[i] > 0 or rows[i, RESIDENT] > 0:
        left[MAX_RESIDENT] += 1.0
    left[FREE_BLOCKS] += held_blocks(rows, i, left)
    tokens[i] = EVICT


@compiled
def make_room(
    rows: Rows,
    tokens: Tokens,
    left: FloatArray,
    i: int,
    need: float,
    ranks: FloatArray,
    others_run: bool,
) -> bool:
    """Whether row `i` has `need` blocks now. With `others_run` it evicts running rows for them, the
    highest rank first and of these the last; that may be `i` itself.
    """
    while left[FREE_BLOCKS] < need:
        victim = _last_running(rows, tokens, ranks) if others_run else -1
        if victim < 0:
            return False
        evict(rows, tokens, left, victim)
        if victim == i:
            return False
    return True


@compiled
def try_decode(rows: Rows, tokens: Tokens, left: FloatArray, ranks: FloatArray, i: int) -> bool:
    """Gives a decode its token and as many drafts as fit; returns whether it had room. A running
    row evicts others for it.
    """
    size, runs = min(size_of(rows, i), left[MAX_TOKENS]), rows[i, RESIDENT] > 0
    if size < 1 or left[MAX_RESIDENT] < 1 - rows[i, RESIDENT]:
        return False
    if not make_room(rows, tokens, left, i, blocks_for(rows, i, size, left), ranks, runs):
        return False
    give(rows, tokens, left, i, size)
    return True


@compiled
def try_chunk(
    rows: Rows, tokens: Tokens, left: FloatArray, ranks: FloatArray, i: int, most: float
) -> float:
    """Gives at most `most` tokens of a prompt; returns how many. A prompt begins only if all of it
    has room.
    """
    rest = rows[i, TOTAL] - rows[i, COMPUTED]
    size = min(rest, most, left[MAX_TOKENS])
    if tokens[i] != 0 or size < 1 or left[MAX_RESIDENT] < 1 - rows[i, RESIDENT]:
        return 0.0
    runs = rows[i, RESIDENT] > 0
    need = blocks_for(rows, i, size if runs else rest, left)
    if not make_room(rows, tokens, left, i, need, ranks, runs):
        return 0.0
    give(rows, tokens, left, i, size)
    return float(size)


@compiled
def all_blocks(rows: Rows, left: FloatArray) -> float:
    """KV blocks of the engine, free or held; infinite where it has no limit."""
    blocks = left[FREE_BLOCKS]
    for i in range(len(rows)):
        blocks += held_blocks(rows, i, left)
    return float(blocks)


@compiled
def _last_running(rows: Rows, tokens: Tokens, ranks: FloatArray) -> int:
    last = -1
    for i in range(len(rows)):
        if rows[i, RESIDENT] > 0 and tokens[i] != EVICT and (last < 0 or ranks[i] >= ranks[last]):
            last = i
    return last


@compiled
def finish(
    rows: Rows,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    limits: FloatArray,
    now: float,
) -> float:
    """Fills `counts`. Where no row got tokens, the first that can run gets some at the cost of all
    others. Returns the seconds within which the step surely ends, 0 where there is no step.
    """
    if not np.any(tokens > 0):
        _force_first(rows, tokens, limits, now)
    counts[:] = 0.0
    for i in range(len(rows)):
        if tokens[i] > 0 and decodes(rows, i):
            add_decode(counts, rows, i)
        elif tokens[i] > 0:
            add_chunk(counts, rows, i, float(tokens[i]))
    if counts[DECODES] + counts[PREFILL] == 0:
        return 0.0
    return float(sure_s(table, counts))


@compiled
def _force_first(rows: Rows, tokens: Tokens, limits: FloatArray, now: float) -> None:
    left = begin(rows, tokens, limits)
    first = -1
    for i in range(len(rows)):
        if can_run(rows, i, now) and (first < 0 or rows[i, RESIDENT] > rows[first, RESIDENT]):
            first = i
    if first < 0:
        return
    size = min(size_of(rows, first), left[MAX_TOKENS])
    need, place = blocks_for(rows, first, size, left), 1.0 - rows[first, RESIDENT]
    for i in range(len(rows) - 1, -1, -1):
        if left[FREE_BLOCKS] >= need and left[MAX_RESIDENT] >= place:
            break
        if i != first and rows[i, COMPUTED] > 0 and can_run(rows, i, now):
            evict(rows, tokens, left, i)
    if left[FREE_BLOCKS] >= need and left[MAX_RESIDENT] >= place and size >= 1:
        give(rows, tokens, left, first, size)
