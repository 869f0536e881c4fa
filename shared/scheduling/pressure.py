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
from shared.scheduling.shares import (
    PROMISED_DECODE,
    PROMISED_PROMPT,
    Sorts,
    add_chunk,
    longest_chunk,
)

ROUNDING_S: Final = 1e-6  # what numbers lose on the wire; nobody is late by less
BEFORE_DUE = 0.9  # of the time to a deadline: now and then steps last longer than expected
_GIVEN_UP = 4.0  # beyond so many paces of lateness the lost time is written off
# A lost prompt's turn comes when it is late by so long, or by so many times what it was given.
_LEAST_TURN_S, _TURN = 2.0, 2.0
_IN_TURN = 3.0  # it is then due within so many times what it takes alone
_MAY_WAIT = 0.5  # paces that decodes may be late to save a prompt; they make up for it


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
def saving_s(
    rows: Rows,
    work: Sorts,
    prompt: int,
    counts: Numbers,
    table: Numbers,
    now: float,
    until_s: float,
) -> float:
    """How long the step must be for this prompt to end in it, where it would be lost after a step
    that ends at `until_s` and decodes are late for it by no more than they can make up for; else 0.
    """
    left_s, whole = rows[prompt, DUE] - now, np.ceil(rows[prompt, TOTAL] - rows[prompt, COMPUTED])
    if until_s + prompt_s(rows, prompt, table) < left_s:
        return 0.0
    after = rows[prompt : prompt + 1].copy()
    after[0, COMPUTED] += longest_chunk(rows, prompt, counts, table, until_s, whole)
    if until_s + prompt_s(after, 0, table) <= left_s:
        return 0.0
    with_it = counts.copy()
    add_chunk(with_it, rows, prompt, whole)
    if expected_s(table, with_it) > left_s:
        return 0.0
    tightest_s = np.inf
    for i in range(len(rows)):
        if work[i] == PROMISED_DECODE:
            tightest_s = min(tightest_s, rows[i, TPOT])
    needed_s = sure_s(table, with_it)
    return float(needed_s) if needed_s <= until_s + _MAY_WAIT * tightest_s else 0.0


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
