"""Promised decodes that could wait, given what time a step has left. Compiled; who cannot wait has
its token already.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import Numbers, sure_s
from shared.compiled import compiled
from shared.scheduling.rows import DUE, TPOT, Rows
from shared.scheduling.shares import (
    PROMISED_DECODE,
    Sorts,
    Tokens,
    add_decode,
    decode_fits,
    give_decode,
    step_pace_s,
)

Order = npt.NDArray[np.intp]
_HANDFUL: Final = 16  # looked at together where the question is how many fit
_AHEAD, _GETS_AHEAD = 4.0, 0.8  # paces that decodes are to be ahead, and the steps to get there
CATCH_UP: Final = 0.8  # a late decode catches up by steps of so much of what each gives, in paces


@compiled
def decodes_before(
    rows: Rows,
    work: Sorts,
    tokens: Tokens,
    counts: Numbers,
    table: Numbers,
    left: Numbers,
    until_s: float,
    due_s: float,
) -> None:
    """Those that are due by `due_s`, as far as the time reaches: where it is too short for all of
    them, who is least ahead of its pace comes first.
    """
    waiting = _waiting(rows, work, tokens, due_s)
    if until_s == np.inf or _fit(rows, waiting, counts, table, until_s):
        for i in waiting:
            give_decode(rows, work, tokens, counts, left, i)
        return
    order = waiting[np.argsort(rows[waiting, DUE], kind="mergesort")]
    given = 0
    while given < len(order) and _fit(
        rows, order[given : given + _HANDFUL], counts, table, until_s
    ):
        for i in order[given : given + _HANDFUL]:
            give_decode(rows, work, tokens, counts, left, i)
        given += _HANDFUL
    for i in order[given:]:
        if not decode_fits(rows, i, counts, table, until_s):
            return
        give_decode(rows, work, tokens, counts, left, i)


@compiled
def unhurried_s(rows: Rows, work: Sorts, now: float) -> float:
    """How long a step may last for prompts that have time: decodes get ahead of their paces before
    anything else lives on that, so that a prompt that comes in a hurry finds slack to use.
    """
    until_s = np.inf
    for i in range(len(rows)):
        if work[i] == PROMISED_DECODE:
            ahead_s = rows[i, DUE] - now - rows[i, TPOT]
            spare_s = max(0.0, ahead_s - _AHEAD * rows[i, TPOT])
            until_s = min(until_s, _GETS_AHEAD * step_pace_s(rows, i) + spare_s)
    return until_s


@compiled
def _waiting(rows: Rows, work: Sorts, tokens: Tokens, due_s: float) -> Order:
    waiting = np.empty(len(rows), dtype=np.intp)
    count = 0
    for i in range(len(rows)):
        if work[i] == PROMISED_DECODE and tokens[i] == 0 and rows[i, DUE] <= due_s:
            waiting[count] = i
            count += 1
    return waiting[:count]


@compiled
def _fit(rows: Rows, those: Order, counts: Numbers, table: Numbers, until_s: float) -> bool:
    """Whether the step with all of them is short enough."""
    more = counts.copy()
    for i in those:
        add_decode(more, rows, i)
    return bool(sure_s(table, more) <= until_s)
