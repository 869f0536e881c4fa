"""Decides how many tokens each request gets in one engine step: compiled code over rows, which the
engine and the planner's simulation both run.

The order of service follows the cumulative deadlines of the paper's demand lines (arXiv 2504.08784,
Algorithm 2), with steps as long as the next deadline allows rather than as the tightest pace. Ranks
are served one after the other; `greedy` is the order within one that has deadlines.
"""

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import DECODES, PREFILL, FloatArray, sure_s
from shared.compiled import compiled, inlined
from shared.scheduling.greedy import (
    PROMISED_RANK,
    TRIED_RANK,
    fitting,
    serve,
    waiting,
    within_longest,
)
from shared.scheduling.recovery import at_least_one, give_in_turn, make_room
from shared.scheduling.rows import (
    AVAILABLE,
    COMPUTED,
    EXPIRED,
    KIND,
    PROMISED,
    REMAINING,
    RESIDENT,
    TOTAL,
    Rows,
)
from shared.scheduling.shares import (
    FREE_BLOCKS,
    KEPT,
    MAX_RESIDENT,
    MAX_TOKENS,
    ONE,
    SET_ASIDE,
    Order,
    Tokens,
    WorkClasses,
    evict_one,
    give_chunk,
    held_blocks,
)
from shared.scheduling.tried import may_be_in_time
from shared.scheduling.tuning import BESIDE, BESIDE_IN_ROOM

# Ranks, in the order of service: the kinds, and between the first two of them best effort that may
# still be in time. A row's class of work is twice its rank, plus one for a prompt.
_RANKS = 5
_NO_SLO, _EXPIRED, _BEST_EFFORT = range(TRIED_RANK + 1, _RANKS)


@compiled
def form(
    rows: Rows,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    limits: FloatArray,
    now: float,
) -> float:
    """Fills `tokens` (one for each row; EVICT drops its KV) and `counts` (those of the step).

    Returns the seconds within which the step surely ends, 0 when there is nothing to do.
    """
    tokens[:] = 0
    counts[:] = 0.0
    left = limits.copy()
    work = np.empty(len(rows), dtype=np.int8)
    of_rank = _classify(rows, work, left, table, now)
    _set_aside(rows, work, tokens, left, of_rank[PROMISED_RANK] > 0)
    bound_s = np.inf
    for rank in range(_NO_SLO):
        if of_rank[rank] > 0:
            bound_s = serve(rows, work, tokens, counts, table, left, now, rank, bound_s)
    bound_s = within_longest(bound_s, left)
    for rank in range(_NO_SLO, _RANKS):
        if of_rank[rank] > 0:
            if rank == _BEST_EFFORT:
                bound_s = _beside(rows, counts, table, left, bound_s)
            _fill(rows, work, tokens, counts, table, left, rank, bound_s)
    if counts[DECODES] + counts[PREFILL] == 0:
        at_least_one(rows, work, tokens, counts, left)
    if counts[DECODES] + counts[PREFILL] == 0:
        make_room(rows, work, tokens, counts, left)
    if counts[DECODES] + counts[PREFILL] == 0:
        return 0.0
    return sure_s(table, counts)


@compiled
def _classify(
    rows: Rows, work: WorkClasses, left: FloatArray, table: FloatArray, now: float
) -> npt.NDArray[np.int64]:
    """Fills `work` and returns the number of rows of each rank. Takes places in use off `left`."""
    of_rank = np.zeros(_RANKS, dtype=np.int64)
    for i in range(len(rows)):
        left[MAX_RESIDENT] -= rows[i, RESIDENT]
        work_class = _work_class_of(rows, i, table, now)
        work[i] = work_class
        if work_class >= 0:
            of_rank[work_class >> 1] += 1
    return of_rank


@compiled
def _set_aside(
    rows: Rows, work: WorkClasses, tokens: Tokens, left: FloatArray, promised: bool
) -> None:
    """Evicts best effort until the blocks set aside are free, beside promises also those KEPT."""
    if promised:
        left[SET_ASIDE] += left[KEPT]
    while left[FREE_BLOCKS] < left[SET_ASIDE]:
        if not evict_one(rows, work, tokens, left):
            return


@inlined
def _work_class_of(rows: Rows, i: int, table: FloatArray, now: float) -> int:
    """The class of work of a row; -1 where it cannot run."""
    if rows[i, REMAINING] <= 0 or rows[i, AVAILABLE] > now:
        return -1
    rank = PROMISED_RANK if rows[i, KIND] == PROMISED else int(rows[i, KIND]) + 1
    if rank == _BEST_EFFORT and may_be_in_time(rows, i, table, now):
        rank = TRIED_RANK
    return 2 * rank + int(rows[i, TOTAL] - rows[i, COMPUTED] > ONE)


@compiled
def _beside(
    rows: Rows, counts: FloatArray, table: FloatArray, left: FloatArray, bound_s: float
) -> float:
    """How long the step may last with best effort added to what is in it already.

    Where no request has or had a promise, best effort shares steps with requests without an SLO.
    """
    if counts[DECODES] + counts[PREFILL] == 0:
        return bound_s
    held, was_asked = 0.0, False
    for i in range(len(rows)):
        was_asked |= rows[i, KIND] == PROMISED or rows[i, KIND] == EXPIRED
        if rows[i, KIND] == PROMISED:
            held += held_blocks(rows, i, left)
    if not was_asked:
        return bound_s
    longer = 1 + (BESIDE_IN_ROOM if left[FREE_BLOCKS] > held else BESIDE)
    return float(min(bound_s, longer * sure_s(table, counts)))


@compiled
def _fill(
    rows: Rows,
    work: WorkClasses,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    left: FloatArray,
    rank: int,
    bound_s: float,
) -> None:
    """Spends the time that is left on decodes, then on prompts, by arrival. No prompt begins in a
    step in which a request of its rank was evicted: it would take the freed KV at once.
    """
    decodes, gave_up = _by_arrival(rows, waiting(work, tokens, 2 * rank)), False
    if bound_s < np.inf:
        decodes = decodes[: fitting(rows, decodes, counts, table, bound_s)]
    for i in decodes:
        if tokens[i] == 0:
            gave_up |= give_in_turn(rows, work, tokens, counts, left, i)
    prompts = waiting(work, tokens, 2 * rank + 1)
    for i in _by_arrival(rows, prompts):
        if left[MAX_TOKENS] < 1:
            return
        if gave_up and rows[i, RESIDENT] == 0:
            continue
        give_chunk(rows, work, tokens, counts, table, left, i, bound_s)
        if tokens[i] == 0 and bound_s < np.inf and left[FREE_BLOCKS] > 0:
            return


@compiled
def _by_arrival(rows: Rows, some: Order) -> Order:
    return some[np.argsort(rows[some, AVAILABLE], kind="mergesort")]
