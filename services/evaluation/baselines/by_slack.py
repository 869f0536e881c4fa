"""Forms steps by slack, as FairBatching does (arXiv 2510.14392): decodes that are nearly due, then
prompts, then decodes that are ahead of their deadlines, each group by least slack, within the time
that decodes leave. Compiled.
"""

import numpy as np
import numpy.typing as npt

from services.evaluation.baselines.room import (
    begin,
    can_run,
    decodes,
    finish,
    try_chunk,
    try_decode,
)
from shared.batch_time.table import FloatArray, sure_s
from shared.compiled import compiled
from shared.scheduling.rows import COMPUTED, DEADLINE, TOTAL, TPOT, Rows
from shared.scheduling.shares import (
    MAX_TOKENS,
    Tokens,
    add_chunk,
    add_decode,
    longest_chunk,
)


@compiled
def form(
    rows: Rows,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    limits: FloatArray,
    now: float,
    pace_share: float,
) -> float:
    """As `shared.scheduling.kernel.form`.

    A step ends before the next token of any decode that is still in time is due, but may always
    last `pace_share` of the tightest pace of all decodes. Decodes that cannot wait for one more
    such step always go; the rest of the step is for prompts, then for the other decodes.
    """
    left = begin(rows, tokens, limits)
    counts[:] = 0.0
    slack_s = rows[:, DEADLINE] - now
    order, ranks = np.argsort(slack_s, kind="mergesort"), np.zeros(len(rows))
    least_s, least_slack_s = np.inf, np.inf
    for i in range(len(rows)):
        if decodes(rows, i) and can_run(rows, i, now):
            least_s = min(least_s, pace_share * rows[i, TPOT])
            if slack_s[i] >= 0:
                least_slack_s = min(least_slack_s, slack_s[i])
    until_s = max(least_s, least_slack_s) if least_slack_s < np.inf else least_s
    nearly_due = slack_s < until_s + least_s
    _decodes(rows, tokens, counts, table, left, ranks, order, nearly_due, now, np.inf)
    _prompts(rows, tokens, counts, table, left, ranks, order, now, until_s)
    _decodes(rows, tokens, counts, table, left, ranks, order, ~nearly_due, now, until_s)
    return float(finish(rows, tokens, counts, table, limits, now))


@compiled
def _decodes(
    rows: Rows,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    left: FloatArray,
    ranks: FloatArray,
    order: npt.NDArray[np.intp],
    chosen: npt.NDArray[np.bool_],
    now: float,
    until_s: float,
) -> None:
    """Gives tokens to the `chosen` decodes, as far as the step still ends by `until_s`."""
    for i in order:
        if not chosen[i] or tokens[i] != 0 or not decodes(rows, i) or not can_run(rows, i, now):
            continue
        if until_s < np.inf and _with_decode_s(rows, i, counts, table) > until_s:
            continue
        if try_decode(rows, tokens, left, ranks, i):
            add_decode(counts, rows, i)


@compiled
def _prompts(
    rows: Rows,
    tokens: Tokens,
    counts: FloatArray,
    table: FloatArray,
    left: FloatArray,
    ranks: FloatArray,
    order: npt.NDArray[np.intp],
    now: float,
    until_s: float,
) -> None:
    """Gives chunks until the time or the tokens are used up; skips prompts without room."""
    for i in order:
        if tokens[i] != 0 or decodes(rows, i) or not can_run(rows, i, now):
            continue
        whole = rows[i, TOTAL] - rows[i, COMPUTED]
        most = min(whole, left[MAX_TOKENS])
        if until_s < np.inf:
            most = longest_chunk(rows, i, counts, table, until_s, most)
        if most < 1:
            return
        size = try_chunk(rows, tokens, left, ranks, i, most)
        if size > 0:
            add_chunk(counts, rows, i, size)


@compiled
def _with_decode_s(rows: Rows, i: int, counts: FloatArray, table: FloatArray) -> float:
    """Seconds within which the step surely ends with row `i` added."""
    more = counts.copy()
    add_decode(more, rows, i)
    return float(sure_s(table, more))
