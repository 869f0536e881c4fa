"""Forms steps in which decodes wait for the last moment, as SLAI does (arXiv 2508.01002, section 6,
and its authors' code): decodes that must run now, then prompts, then other decodes, within a token
budget. Compiled.
"""

import numpy as np
import numpy.typing as npt

from services.evaluation.baselines.room import (
    all_blocks,
    begin,
    can_run,
    decodes,
    finish,
    try_chunk,
    try_decode,
)
from shared.batch_time.table import FloatArray
from shared.compiled import compiled
from shared.scheduling.rows import COMPUTED, DEADLINE, RESIDENT, TOTAL, TPOT, Rows
from shared.scheduling.shares import FREE_BLOCKS, MAX_TOKENS, Tokens

_FULL = 0.96  # of the KV blocks: above this decodes run earlier, so that they end and free some
_EARLIER = 2.0  # times as early


@compiled
def form(
    rows: Rows,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    limits: FloatArray,
    now: float,
    early_s: float,
    shortest_first: bool,
    tight_first: bool,
) -> float:
    """As `shared.scheduling.kernel.form`; MAX_TOKENS of `limits` is the budget.

    A decode must run from `early_s` before its token is due, and from twice as long before while
    the KV cache is nearly full. Waiting prompts are ordered by length if `shortest_first`, else by
    arrival; if `tight_first`, by pace before that.
    """
    left = begin(rows, tokens, limits)
    if left[FREE_BLOCKS] <= (1 - _FULL) * all_blocks(rows, left) < np.inf:
        early_s *= _EARLIER
    # Started prompts are evicted before decodes.
    ranks = np.array([0.0 if decodes(rows, i) else 1.0 for i in range(len(rows))])
    by_due = np.argsort(rows[:, DEADLINE], kind="mergesort")
    must_run = rows[:, DEADLINE] - now <= early_s
    _decodes(rows, tokens, left, ranks, by_due, must_run, now)
    for i in range(len(rows)):
        if rows[i, RESIDENT] > 0 and not decodes(rows, i) and can_run(rows, i, now):
            try_chunk(rows, tokens, left, ranks, i, left[MAX_TOKENS])
    _start(rows, tokens, left, ranks, _order(rows, shortest_first, tight_first), now)
    _decodes(rows, tokens, left, ranks, by_due, ~must_run, now)
    return float(finish(rows, tokens, counts, table, limits, now))


@compiled
def _decodes(
    rows: Rows,
    tokens: Tokens,
    left: FloatArray,
    ranks: FloatArray,
    order: npt.NDArray[np.intp],
    chosen: npt.NDArray[np.bool_],
    now: float,
) -> None:
    for i in order:
        if chosen[i] and tokens[i] == 0 and decodes(rows, i) and can_run(rows, i, now):
            try_decode(rows, tokens, left, ranks, i)


@compiled
def _order(rows: Rows, shortest_first: bool, tight_first: bool) -> npt.NDArray[np.intp]:
    order = np.arange(len(rows))
    if shortest_first:
        order = np.argsort(rows[:, TOTAL] - rows[:, COMPUTED], kind="mergesort")
    if tight_first:
        order = order[np.argsort(rows[order, TPOT], kind="mergesort")]
    return order


@compiled
def _start(
    rows: Rows,
    tokens: Tokens,
    left: FloatArray,
    ranks: FloatArray,
    order: npt.NDArray[np.intp],
    now: float,
) -> None:
    """Starts prompts in order until one has no room."""
    for i in order:
        waits = rows[i, RESIDENT] == 0 and tokens[i] == 0 and can_run(rows, i, now)
        if not waits or decodes(rows, i):
            continue
        if try_chunk(rows, tokens, left, ranks, i, left[MAX_TOKENS]) == 0:
            return
