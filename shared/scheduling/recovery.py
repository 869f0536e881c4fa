"""Forms a step where nothing fits in time or in KV, so that the engine goes on. Compiled."""

from shared.batch_time.table import FloatArray
from shared.compiled import compiled
from shared.scheduling.rows import AVAILABLE, COMPUTED, DEADLINE, DRAFT, KIND, RESIDENT, TOTAL, Rows
from shared.scheduling.shares import (
    MAX_TOKENS,
    ONE,
    Tokens,
    WorkClasses,
    add_chunk,
    evict,
    give_decode,
    take,
)
from shared.scheduling.tuning import SMALLEST_CHUNK


@compiled
def at_least_one(
    rows: Rows, work: WorkClasses, tokens: Tokens, counts: FloatArray, left: FloatArray
) -> None:
    """Gives the first row in line a token or a small chunk where nothing is in time."""
    best = -1
    for i in range(len(rows)):
        if work[i] < 0 or tokens[i] != 0:
            continue
        if best < 0 or (rows[i, KIND], rows[i, DEADLINE]) < (
            rows[best, KIND],
            rows[best, DEADLINE],
        ):
            best = i
    if best < 0:
        return
    _give_little(rows, work, tokens, counts, left, best)


@compiled
def _give_little(
    rows: Rows, work: WorkClasses, tokens: Tokens, counts: FloatArray, left: FloatArray, i: int
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
    rows: Rows, work: WorkClasses, tokens: Tokens, counts: FloatArray, left: FloatArray, i: int
) -> bool:
    """Gives a row a token and its drafts. Where KV is short, rows of its kind that came later are
    evicted, the last one first, as vLLM preempts: if all kept their KV, few could go on. Returns
    whether one was evicted.
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
def _last_after(rows: Rows, work: WorkClasses, tokens: Tokens, i: int) -> int:
    """The last row of the same kind that came after `i` and holds KV; -1: none."""
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
def make_room(
    rows: Rows, work: WorkClasses, tokens: Tokens, counts: FloatArray, left: FloatArray
) -> None:
    """Where no row can go on for want of KV, lets the first of those that hold any go on and evicts
    the last ones. The order is by kind, then by arrival: it stays the same from step to step, so
    that rows do not evict each other in turn.
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
def _end_of_holders(rows: Rows, work: WorkClasses, tokens: Tokens, sign: float, but: int) -> int:
    """The first (`sign` 1) or last (-1) row in a place, other than `but`; -1: none."""
    found = -1
    for i in range(len(rows)):
        if i == but or work[i] < 0 or tokens[i] != 0 or rows[i, RESIDENT] == 0:
            continue
        rank = (sign * rows[i, KIND], sign * rows[i, AVAILABLE])
        if found < 0 or rank < (sign * rows[found, KIND], sign * rows[found, AVAILABLE]):
            found = i
    return found
