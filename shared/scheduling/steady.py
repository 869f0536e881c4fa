"""Tests whether paces can be kept once all prompts are computed, from the time of a step of all
decodes. Compiled.
"""

import numpy as np

from shared.batch_time import StepTable
from shared.batch_time.table import (
    COUNTS,
    DECODE_CONTEXT,
    DECODES,
    LONGEST_CONTEXT,
    SPECULATED,
    SPECULATION_STEPS,
    FloatArray,
    expected_s,
    sure_s,
)
from shared.compiled import compiled, inlined
from shared.scheduling.rows import (
    DEADLINE,
    DRAFT,
    KIND,
    PROMISED,
    REMAINING,
    TOTAL,
    TPOT,
    Rows,
)
from shared.scheduling.shares import step_pace_s
from shared.scheduling.tuning import AVERAGED


@inlined
def likely_s(sure: float, table: FloatArray, counts: FloatArray) -> float:
    """Seconds per step over many steps: most of the margin of a single step averages out."""
    expected = expected_s(table, counts)
    return expected + (sure - expected) / AVERAGED


@compiled
def held_for_ever(rows: Rows, table: FloatArray, now: float) -> bool:
    """Whether all paces are kept from here on by one step of the decodes that cannot wait for two
    full steps, and then by full steps, one after the other.
    """
    counts = np.zeros(COUNTS)
    tightest_s = np.inf
    for i in range(len(rows)):
        if rows[i, KIND] == PROMISED and rows[i, REMAINING] > 0:
            tightest_s = min(tightest_s, rows[i, TPOT])
            _add_share(counts, rows, i, 1.0)
    all_s = sure_s(table, counts)
    if all_s > tightest_s:
        return False
    counts[:] = 0.0
    for i in range(len(rows)):
        if (
            rows[i, KIND] == PROMISED
            and rows[i, REMAINING] > 0
            and rows[i, DEADLINE] - now < 2 * all_s
        ):
            _add_share(counts, rows, i, 1.0)
    first_s = sure_s(table, counts) if counts[DECODES] > 0 else 0.0
    for i in range(len(rows)):
        if rows[i, KIND] != PROMISED or rows[i, REMAINING] <= 0:
            continue
        wait_s = rows[i, DEADLINE] - now
        first = wait_s < 2 * all_s
        if wait_s < (first_s if first else first_s + all_s):
            return False
        if first and wait_s + rows[i, TPOT] < first_s + all_s:
            return False
    return True


def steady_state_utilization(rows: Rows, table: StepTable) -> float:
    """The engine's utilization by the paces of all promised requests once every prompt is computed.
    Above 1 they cannot all be kept.

    A request of pace t takes part in every (t / tightest pace)th step (virtual batch size, as in
    SCORPIO, arXiv 2505.23022).
    """
    return float(_utilization(rows, table.numbers))


@compiled
def _utilization(rows: Rows, table: FloatArray) -> float:
    tightest_s = np.inf
    for i in range(len(rows)):
        if rows[i, KIND] == PROMISED and rows[i, REMAINING] > 0:
            tightest_s = min(tightest_s, step_pace_s(rows, i))
    if tightest_s == np.inf:
        return 0.0
    counts = np.zeros(COUNTS)
    for i in range(len(rows)):
        if rows[i, KIND] == PROMISED and rows[i, REMAINING] > 0 and rows[i, TPOT] < np.inf:
            _add_share(counts, rows, i, tightest_s / step_pace_s(rows, i))
    return float(likely_s(sure_s(table, counts), table, counts) / tightest_s)


@inlined
def _add_share(counts: FloatArray, rows: Rows, i: int, share: float) -> None:
    """Adds a decode that is in this share of the steps, with all of its tokens as context."""
    counts[DECODES] += share
    counts[SPECULATED] += share * rows[i, DRAFT]
    counts[SPECULATION_STEPS] = max(counts[SPECULATION_STEPS], rows[i, DRAFT])
    counts[DECODE_CONTEXT] += share * rows[i, TOTAL]
    counts[LONGEST_CONTEXT] = max(counts[LONGEST_CONTEXT], rows[i, TOTAL])
