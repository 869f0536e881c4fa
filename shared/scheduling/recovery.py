"""A step where nothing is in time or nothing has room: somebody always goes on. Compiled."""

from shared.batch_time.table import Numbers
from shared.compiled import compiled
from shared.scheduling.rows import AVAILABLE, COMPUTED, DUE, KIND, RESIDENT, TOTAL, Rows
from shared.scheduling.shares import (
    ONE,
    Sorts,
    Tokens,
    add_chunk,
    evict,
    give_decode,
    take,
)
from shared.scheduling.tuning import SMALLEST_CHUNK


@compiled
def at_least_one(rows: Rows, work: Sorts, tokens: Tokens, counts: Numbers, left: Numbers) -> None:
    """An engine never stands still: the first in line gets a little where nothing is in time."""
    best = -1
    for i in range(len(rows)):
        if work[i] < 0 or tokens[i] != 0:
            continue
        if best < 0 or (rows[i, KIND], rows[i, DUE]) < (rows[best, KIND], rows[best, DUE]):
            best = i
    if best < 0:
        return
    _give_little(rows, work, tokens, counts, left, best)


@compiled
def _give_little(
    rows: Rows, work: Sorts, tokens: Tokens, counts: Numbers, left: Numbers, i: int
) -> bool:
    size = rows[i, TOTAL] - rows[i, COMPUTED]
    if size <= ONE:
        give_decode(rows, work, tokens, counts, left, i)
        return bool(tokens[i] > 0)
    size = min(float(SMALLEST_CHUNK), size)
    if take(rows, work, tokens, left, i, size):
        tokens[i] = int(size)
        add_chunk(counts, rows, i, size)
    return bool(tokens[i] > 0)


@compiled
def make_room(rows: Rows, work: Sorts, tokens: Tokens, counts: Numbers, left: Numbers) -> None:
    """Where nobody can go on for want of KV: the first of those that hold any goes on at the cost
    of the last. First is who was promised, then who came first: that does not change from step to
    step, so that nobody takes it back.
    """
    first = _end_of_holders(rows, work, tokens, 1.0, -1)
    if first < 0:
        return
    while not _give_little(rows, work, tokens, counts, left, first):
        last = _end_of_holders(rows, work, tokens, -1.0, first)
        if last < 0:
            return
        evict(rows, tokens, left, last)


@compiled
def _end_of_holders(rows: Rows, work: Sorts, tokens: Tokens, sign: float, but: int) -> int:
    """The first (`sign` 1) or last (-1) of those that take a place, but for one; -1: none."""
    found = -1
    for i in range(len(rows)):
        if i == but or work[i] < 0 or tokens[i] != 0 or rows[i, RESIDENT] == 0:
            continue
        rank = (sign * rows[i, KIND], sign * rows[i, AVAILABLE])
        if found < 0 or rank < (sign * rows[found, KIND], sign * rows[found, AVAILABLE]):
            found = i
    return found
