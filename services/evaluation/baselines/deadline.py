"""Forms steps by deadline, as QoServe does (arXiv 2503.22562, also called Niyama, and its authors'
code). Decodes always run. Prompts get what their slack leaves, by deadline and work left. Prompts
that cannot be on time are relegated before they begin. Compiled; relegation is kept in the rows.
"""

import numpy as np

from services.evaluation.baselines.room import (
    begin,
    can_run,
    decodes,
    finish,
    try_chunk,
    try_decode,
)
from shared.batch_time.table import DECODES, SPECULATED, FloatArray, expected_s, sure_s
from shared.compiled import compiled
from shared.scheduling.rows import (
    COMPUTED,
    DEADLINE,
    EXPIRED,
    GENERATED,
    KIND,
    RESIDENT,
    TOTAL,
    Rows,
)
from shared.scheduling.shares import MAX_TOKENS, Tokens, add_chunk, add_decode

_LEAST_TOKENS = 128.0  # the fewest tokens of a step, decodes included, at any slack
_GRAIN_TOKENS = 128.0
_NEVER_S = 1e9


@compiled
def form(
    rows: Rows,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    limits: FloatArray,
    now: float,
    alpha_s: float,
) -> float:
    """As `shared.scheduling.kernel.form`; relegated rows become EXPIRED.

    Prompts are ordered by deadline plus `alpha_s` for each token that is left of them.
    """
    left = begin(rows, tokens, limits)
    counts[:] = 0.0
    slack_s = _decodes(rows, tokens, counts, left, now)
    first = _first(rows, now, alpha_s)
    if first >= 0:
        budget = _prompt_tokens(rows, counts, table, left, first, slack_s)
        per_s = _prompt_tokens_per_s(rows, counts, table, first, budget)
        _relegate(rows, now, per_s)
        urgency, kinds = _urgency(rows, now, alpha_s), rows[:, KIND].copy()
        for i in np.argsort(urgency, kind="mergesort"):
            if urgency[i] == np.inf or budget < 1:
                break
            budget -= try_chunk(rows, tokens, left, kinds, i, budget)
    return float(finish(rows, tokens, counts, table, limits, now))


@compiled
def _decodes(rows: Rows, tokens: Tokens, counts: FloatArray, left: FloatArray, now: float) -> float:
    """Gives decodes their tokens. Returns the least time until a token of a row that was not
    relegated is due.
    """
    slack_s, kinds = np.inf, rows[:, KIND].copy()
    for i in range(len(rows)):
        if tokens[i] != 0 or not decodes(rows, i) or not can_run(rows, i, now):
            continue
        if not try_decode(rows, tokens, left, kinds, i):
            continue
        add_decode(counts, rows, i)
        if rows[i, KIND] != EXPIRED:
            slack_s = min(slack_s, rows[i, DEADLINE] - now)
    return slack_s


@compiled
def _urgency(rows: Rows, now: float, alpha_s: float) -> FloatArray:
    """The order of prompts, the least first: relegated ones come after all others; other rows are
    inf.
    """
    urgency = np.full(len(rows), np.inf)
    for i in range(len(rows)):
        if decodes(rows, i) or not can_run(rows, i, now):
            continue
        due_s = rows[i, DEADLINE] - now if rows[i, DEADLINE] < np.inf else _NEVER_S
        urgency[i] = due_s + alpha_s * (rows[i, TOTAL] - rows[i, COMPUTED])
        if rows[i, KIND] == EXPIRED:
            urgency[i] += 10 * _NEVER_S
    return urgency


@compiled
def _first(rows: Rows, now: float, alpha_s: float) -> int:
    """The most urgent prompt; -1: there is none."""
    urgency = _urgency(rows, now, alpha_s)
    first = -1
    for i in range(len(rows)):
        if urgency[i] < np.inf and (first < 0 or urgency[i] < urgency[first]):
            first = i
    return first


@compiled
def _prompt_tokens(
    rows: Rows, counts: FloatArray, table: FloatArray, left: FloatArray, first: int, slack_s: float
) -> float:
    """The most prompt tokens within the slack; all tokens of the step are whole grains."""
    decoding = counts[DECODES] + counts[SPECULATED]
    most = decoding + left[MAX_TOKENS]
    low, high = _LEAST_TOKENS, np.floor(most / _GRAIN_TOKENS) * _GRAIN_TOKENS
    while high > low:
        middle = np.ceil((low + high) / 2 / _GRAIN_TOKENS) * _GRAIN_TOKENS
        more = counts.copy()
        add_chunk(more, rows, first, max(0.0, middle - decoding))
        if sure_s(table, more) <= slack_s:
            low = middle
        else:
            high = middle - _GRAIN_TOKENS
    return float(max(0.0, min(low - decoding, left[MAX_TOKENS])))


@compiled
def _prompt_tokens_per_s(
    rows: Rows, counts: FloatArray, table: FloatArray, first: int, budget: float
) -> float:
    """The prompt tokens per second of steps like this one."""
    if budget < 1:
        return np.inf
    more = counts.copy()
    add_chunk(more, rows, first, budget)
    return float(budget / expected_s(table, more))


@compiled
def _relegate(rows: Rows, now: float, per_s: float) -> None:
    """Relegates prompts eagerly, before anything was computed for them."""
    for i in range(len(rows)):
        begun = rows[i, RESIDENT] > 0 or rows[i, GENERATED] > 0
        if begun or decodes(rows, i) or not can_run(rows, i, now):
            continue
        if now + (rows[i, TOTAL] - rows[i, COMPUTED]) / per_s > rows[i, DEADLINE]:
            rows[i, KIND] = EXPIRED
