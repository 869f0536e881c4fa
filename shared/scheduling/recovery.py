"""A step where nothing is in time or nothing has room: somebody always goes on. Compiled."""

from shared.batch_time.table import Numbers
from shared.compiled import compiled
from shared.scheduling.rows import AVAILABLE, COMPUTED, DRAFT, DUE, KIND, RESIDENT, TOTAL, Rows
from shared.scheduling.shares import (
    MAX_TOKENS,
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
def give_in_turn(
    rows: Rows, work: Sorts, tokens: Tokens, counts: Numbers, left: Numbers, i: int
) -> bool:
    """A token and its drafts. Where KV is short, those of its kind that came later give theirs up,
    the last one first, as vLLM preempts: if all kept what they have, few could go on. Returns
    whether one did.
    """
    give_decode(rows, work, tokens, counts, left, i)
    gave_up = False
    while tokens[i] == 0 and left[MAX_TOKENS] >= 1 + rows[i, DRAFT]:
        last = _last_after(rows, work, tokens, i)
        if last < 0:
            break
        evict(rows, tokens, left, last)
        gave_up = True
        give_decode(rows, work, tokens, counts, left, i)
    return gave_up


@compiled
def _last_after(rows: Rows, work: Sorts, tokens: Tokens, i: int) -> int:
    """The last one of the same kind that came after it and holds KV; -1: none."""
    last = -1
    for j in range(len(rows)):
        holds = rows[j, RESIDENT] > 0 and work[j] >= 0 and tokens[j] == 0
        if not holds or rows[j, KIND] != rows[i, KIND]:
            continue
        if (rows[j, AVAILABLE], j) > (rows[i, AVAILABLE], i) and (
            last < 0 or rows[j, AVAILABLE] >= rows[last, AVAILABLE]
        ):
            last = j
    return last


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
