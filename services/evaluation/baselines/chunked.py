"""Forms steps of chunked prefill, as vLLM V1 (v1/core/sched/scheduler.py) and Sarathi-Serve (arXiv
2403.02310, algorithm 3) do: all running requests, then waiting ones, within a token budget.
Compiled.
"""

import numpy as np
import numpy.typing as npt

from services.evaluation.baselines.room import (
    begin,
    blocks_for,
    can_run,
    decodes,
    finish,
    give,
    make_room,
    size_of,
)
from shared.batch_time.table import FloatArray
from shared.compiled import compiled
from shared.scheduling.rows import COMPUTED, KEY, RESIDENT, TOTAL, Rows
from shared.scheduling.shares import EVICT, MAX_RESIDENT, MAX_TOKENS, Tokens


@compiled
def form(
    rows: Rows,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    limits: FloatArray,
    now: float,
    by_priority: bool,
    draft_slots: float,
) -> float:
    """As `shared.scheduling.kernel.form`; MAX_TOKENS of `limits` is the budget.

    `by_priority`: waiting rows are ordered by KEY, the lowest first, and the highest is evicted
    first. `draft_slots`: tokens of the budget that each request of the step takes in addition, for
    what the draft model appends to it.
    """
    left = begin(rows, tokens, limits)
    ranks = rows[:, KEY].copy() if by_priority else np.zeros(len(rows))
    _decodes_run(rows, tokens, left, ranks, draft_slots, now)
    _prompts_run(rows, tokens, left, ranks, draft_slots, now)
    if not _preempted(rows, tokens):
        order = np.argsort(ranks, kind="mergesort")
        _start(rows, tokens, left, ranks, order, draft_slots, now, True)
        _start(rows, tokens, left, ranks, order, draft_slots, now, False)
    return float(finish(rows, tokens, counts, table, limits, now))


@compiled
def _decodes_run(
    rows: Rows, tokens: Tokens, left: FloatArray, ranks: FloatArray, draft_slots: float, now: float
) -> None:
    for i in range(len(rows)):
        runs = rows[i, RESIDENT] > 0 and tokens[i] == 0 and can_run(rows, i, now)
        if not runs or not decodes(rows, i):
            continue
        if not _go_on(rows, tokens, left, ranks, i, draft_slots):
            return


@compiled
def _prompts_run(
    rows: Rows, tokens: Tokens, left: FloatArray, ranks: FloatArray, draft_slots: float, now: float
) -> None:
    """Started prompts began after all decoding requests: they are behind them in the queue."""
    for i in range(len(rows)):
        runs = rows[i, RESIDENT] > 0 and tokens[i] == 0 and can_run(rows, i, now)
        if not runs or decodes(rows, i):
            continue
        if not _go_on(rows, tokens, left, ranks, i, draft_slots):
            return


@compiled
def _go_on(
    rows: Rows,
    tokens: Tokens,
    left: FloatArray,
    ranks: FloatArray,
    i: int,
    draft_slots: float,
) -> bool:
    """Gives a running row its tokens. Returns whether rows behind it may get tokens."""
    size = min(size_of(rows, i), _budget_tokens(tokens, left, draft_slots))
    if size < 1:
        return False
    need = blocks_for(rows, i, size, left)
    if make_room(rows, tokens, left, i, need, ranks, True):
        give(rows, tokens, left, i, size)
    return True


@compiled
def _budget_tokens(tokens: Tokens, left: FloatArray, draft_slots: float) -> float:
    """The tokens of the budget that one more request may have."""
    if draft_slots == 0:
        return float(left[MAX_TOKENS])
    return float(left[MAX_TOKENS] - draft_slots * (np.sum(tokens > 0) + 1))


@compiled
def _preempted(rows: Rows, tokens: Tokens) -> bool:
    return bool(np.any((tokens == EVICT) & (rows[:, RESIDENT] > 0)))


@compiled
def _start(
    rows: Rows,
    tokens: Tokens,
    left: FloatArray,
    ranks: FloatArray,
    order: npt.NDArray[np.intp],
    draft_slots: float,
    now: float,
    have_kv: bool,
) -> None:
    """Starts rows with KV from elsewhere, or all others, until one has no room. All of a prompt
    must have room (scheduler_reserve_full_isl).
    """
    for i in order:
        waits = rows[i, RESIDENT] == 0 and tokens[i] == 0 and can_run(rows, i, now)
        if not waits or (decodes(rows, i) and rows[i, COMPUTED] > 0) != have_kv:
            continue
        size = min(size_of(rows, i), _budget_tokens(tokens, left, draft_slots))
        if size < 1 or left[MAX_RESIDENT] < 1:
            return
        need = blocks_for(rows, i, max(size, rows[i, TOTAL] - rows[i, COMPUTED]), left)
        if not make_room(rows, tokens, left, i, need, ranks, False):
            return
        give(rows, tokens, left, i, size)
