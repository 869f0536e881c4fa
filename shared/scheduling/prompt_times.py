"""Seconds that an engine takes to compute a prompt. Compiled."""

import numpy as np

from shared.batch_time.table import FloatArray, chunk_s, expected_s, sure_s
from shared.compiled import compiled, inlined
from shared.scheduling.rows import COMPUTED, DEADLINE, GRACE, TOTAL, TPOT, Rows
from shared.scheduling.shares import Order, add_chunk, longest_chunk, missing
from shared.scheduling.tuning import MAY_WAIT


@compiled
def saving_s(
    rows: Rows,
    decodes: Order,
    prompt: int,
    counts: FloatArray,
    table: FloatArray,
    now: float,
    until_s: float,
) -> float:
    """The length of a step in which this prompt ends, if that saves it; else 0.

    It does where the prompt would be lost after a step of `until_s` seconds, can still be on time,
    and makes decodes late by no more than they can make up for: by nothing where each of their
    tokens has a deadline.
    """
    left_s, whole = rows[prompt, DEADLINE] - now, missing(rows, prompt)
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
    needed_s, tightest_s = sure_s(table, with_it), np.inf
    for i in decodes:
        tightest_s = min(tightest_s, rows[i, TPOT])
        if rows[i, GRACE] == np.inf and 0 < rows[i, DEADLINE] - now < needed_s:
            return 0.0
    return float(needed_s) if needed_s <= until_s + MAY_WAIT * tightest_s else 0.0


@inlined
def prompt_s(rows: Rows, i: int, table: FloatArray) -> float:
    """Expected seconds to compute the rest of a prompt in one step of its own."""
    return chunk_s(table, rows[i, COMPUTED], rows[i, TOTAL] - rows[i, COMPUTED])
