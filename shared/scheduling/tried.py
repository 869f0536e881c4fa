"""Requests without a promise that may still be in time: after those with a promise, before those
that asked for nothing. Compiled.

Time that promises leave over goes first to requests that can still meet their deadline, in the
order of their deadlines (EDF).
"""

from typing import Final

import numpy as np

from shared.batch_time.table import Numbers, sure_s
from shared.compiled import compiled
from shared.scheduling.decodes import CATCH_UP, unhurried_s
from shared.scheduling.pressure import prompt_s
from shared.scheduling.rows import DUE, PRODUCED, TPOT, Rows
from shared.scheduling.shares import (
    Sorts,
    Tokens,
    decode_fits,
    give_chunk,
    give_decode,
    step_pace_s,
)

TRIED_DECODE, TRIED_PROMPT = 8, 9  # sorts of work, after those of all kinds
SORTS: Final = 10
_MAY_BE_LATE: Final = 4.0  # paces; a decode that is behind by more is not tried any more


@compiled
def may_be_in_time(rows: Rows, i: int, table: Numbers, now: float) -> bool:
    """Whether a request without a promise can still have what it asked for."""
    if rows[i, DUE] == np.inf:
        return bool(rows[i, TPOT] < np.inf)
    if rows[i, PRODUCED] > 0:
        return bool(now <= rows[i, DUE] + _MAY_BE_LATE * rows[i, TPOT])
    return bool(now + prompt_s(rows, i, table) <= rows[i, DUE])


@compiled
def tried(
    rows: Rows,
    work: Sorts,
    tokens: Tokens,
    counts: Numbers,
    table: Numbers,
    left: Numbers,
    now: float,
    until_s: float,
) -> float:
    """What may be in time without a promise, by deadline: decodes, then prompts. Promised decodes
    get ahead of their paces first, as they do for promised prompts that have time.

    Returns how long the step may last for what asked for nothing: what is tried is late for that no
    more than a promised decode would be.
    """
    own_s = min(until_s, max(sure_s(table, counts), unhurried_s(rows, work, now)))
    after_s = until_s
    by_due = np.argsort(rows[:, DUE], kind="mergesort")
    for i in by_due:
        if work[i] != TRIED_DECODE or tokens[i] != 0:
            continue
        if own_s < np.inf and not decode_fits(rows, i, counts, table, own_s):
            break
        give_decode(rows, work, tokens, counts, left, i)
        wait_s = max(rows[i, DUE] - now, CATCH_UP * step_pace_s(rows, i))
        after_s = min(after_s, wait_s)
    own_s = min(own_s, max(sure_s(table, counts), after_s))
    for i in by_due:
        if work[i] != TRIED_PROMPT or tokens[i] != 0:
            continue
        if not give_chunk(rows, work, tokens, counts, table, left, i, own_s):
            break
    return after_s
