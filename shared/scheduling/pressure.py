"""How pressed an engine is for its promised prompts, and which promises are lost. Compiled; it
gives nobody tokens.
"""

from typing import Final

import numpy as np

from shared.batch_time.table import COUNTS, DECODES, Numbers, expected_s, sure_s
from shared.compiled import compiled
from shared.scheduling.rows import (
    AVAILABLE,
    COMPUTED,
    DUE,
    KIND,
    LOST,
    PRODUCED,
    PROMISED,
    TOTAL,
    TPOT,
    Rows,
)
from shared.scheduling.shares import PROMISED_PROMPT, Sorts, add_chunk

ROUNDING_S: Final = 1e-6  # what numbers lose on the wire; nobody is late by less
BEFORE_DUE = 0.9  # of the time to a deadline: now and then steps last longer than expected
_GIVEN_UP = 4.0  # beyond so many paces of lateness the lost time is written off
# A lost prompt's turn comes when it is late by so long, or by so many times what it was given.
_LEAST_TURN_S, _TURN = 2.0, 2.0
_IN_TURN = 3.0  # it is then due within so many times what it takes alone


@compiled
def settle_lost(rows: Rows, table: Numbers, now: float) -> int:
    """Takes promises that cannot be kept any more out of the way of the others.

    A first token that would be late even if the engine did nothing else makes its request LOST. A
    request that is far behind its pace starts anew from here. Returns how many were settled.

    What is LOST is still owed: its pace from its first token on, and that one after a while at the
    cost of others.
    """
    settled = 0
    for i in range(len(rows)):
        if rows[i, KIND] == LOST and (rows[i, PRODUCED] > 0 or now >= _turn_s(rows, i)):
            rows[i, KIND] = PROMISED
            if rows[i, PRODUCED] == 0:
                rows[i, DUE] = now + _IN_TURN * prompt_s(rows, i, table)
        if rows[i, KIND] != PROMISED or rows[i, AVAILABLE] > now or rows[i, DUE] == np.inf:
            continue
        if rows[i, PRODUCED] == 0:
            if now + prompt_s(rows, i, table) > rows[i, DUE] + ROUNDING_S:
                rows[i, KIND] = LOST
                settled += 1
        elif now > rows[i, DUE] + _GIVEN_UP * rows[i, TPOT]:
            rows[i, DUE] = now
            settled += 1
    return settled


@compiled
def _turn_s(rows: Rows, i: int) -> float:
    """When a LOST prompt is owed at the cost of others: who waited for long waits for longer."""
    due_s = rows[i, DUE]
    return float(due_s + max(_LEAST_TURN_S, _TURN * (due_s - rows[i, AVAILABLE])))


@compiled
def pressure(rows: Rows, work: Sorts, table: Numbers, now: float) -> tuple[float, float]:
    """The greatest share of the time up to a prompt's deadline that it and those due before it need
    of the engine: above 1 they cannot all be on time even with the engine to themselves. And the
    seconds that a step may take beside all of them, for each to be on time if it ends with it.
    """
    shared_s = expected_s(table, np.zeros(COUNTS))  # prompts may go together
    dues_s, takes_s = np.empty(len(rows)), np.empty(len(rows))
    prompts = 0
    for i in range(len(rows)):
        if work[i] == PROMISED_PROMPT and rows[i, DUE] < np.inf:
            dues_s[prompts] = rows[i, DUE]
            takes_s[prompts] = prompt_takes_s(rows, i, table)
            prompts += 1
    most, beside_s, work_s = 0.0, np.inf, shared_s
    for i in np.argsort(dues_s[:prompts]):
        work_s += takes_s[i]
        left_s = dues_s[i] - now
        most = max(most, work_s / left_s if left_s > 0 else np.inf)
        beside_s = min(beside_s, BEFORE_DUE * left_s - (work_s - shared_s))
    return most, beside_s


@compiled
def prompt_s(rows: Rows, i: int, table: Numbers) -> float:
    """The rest of a prompt in one step of its own."""
    counts = np.zeros(COUNTS)
    add_chunk(counts, rows, i, rows[i, TOTAL] - rows[i, COMPUTED])
    return expected_s(table, counts)


@compiled
def prompt_takes_s(rows: Rows, i: int, table: Numbers) -> float:
    """The same in a step that others share."""
    return float(prompt_s(rows, i, table) - expected_s(table, np.zeros(COUNTS)))


@compiled
def surely_adds_s(rows: Rows, i: int, table: Numbers) -> float:
    """By how much the rest of a prompt surely makes a step of decodes longer."""
    counts = np.zeros(COUNTS)
    counts[DECODES] = 1.0
    without_s = sure_s(table, counts)
    add_chunk(counts, rows, i, rows[i, TOTAL] - rows[i, COMPUTED])
    return float(sure_s(table, counts) - without_s)
