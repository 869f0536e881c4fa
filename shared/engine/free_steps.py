"""Steps of requests that asked for nothing, as vLLM forms them by itself: what they do to rows, and
what rows have to do. Compiled; chooses nobody.
"""

import numpy as np
import numpy.typing as npt

from shared.batch_time.table import COUNTS, Numbers
from shared.compiled import compiled
from shared.scheduling.rows import COMPUTED, LEFT, PRODUCED, RESIDENT, TOTAL, Rows
from shared.scheduling.shares import ONE, add_chunk, add_decode

Slots = npt.NDArray[np.intp]
Tokens = npt.NDArray[np.int64]


@compiled
def run_freely(rows: Rows, slots: Slots, tokens: Tokens) -> Numbers:
    """Lets the rows of these slots run ahead by so many `tokens` each, of which none is drafted.

    Returns the step's counts as the step former has them.
    """
    counts = np.zeros(COUNTS)
    for place in range(len(slots)):
        i, size = slots[place], tokens[place]
        if rows[i, TOTAL] - rows[i, COMPUTED] <= ONE:
            add_decode(counts, rows, i)
        else:
            add_chunk(counts, rows, i, float(size))
        rows[i, COMPUTED] += size
        rows[i, RESIDENT] = 1.0
        if rows[i, COMPUTED] >= rows[i, TOTAL]:
            rows[i, TOTAL] += 1
            rows[i, PRODUCED] += 1
            rows[i, LEFT] -= 1
    return counts


@compiled
def queued_tokens(rows: Rows) -> float:
    """Not computed yet of those that have given nothing."""
    queued = 0.0
    for i in range(len(rows)):
        if rows[i, PRODUCED] == 0:
            queued += rows[i, TOTAL] - rows[i, COMPUTED]
    return queued
