"""Finds promises that cannot be kept any more, and when they are served all the same. Compiled."""

from typing import Final

import numpy as np

from shared.batch_time.table import FloatArray
from shared.compiled import compiled, inlined
from shared.scheduling.prompt_times import prompt_s
from shared.scheduling.rows import (
    AVAILABLE,
    DEADLINE,
    EXPIRED,
    GENERATED,
    KIND,
    PROMISED,
    TPOT,
    Rows,
)
from shared.scheduling.tuning import GIVEN_UP, IN_TURN, LEAST_TURN_S, TURN

ROUNDING_S: Final = 1e-6  # lost to float32 on the wire; less than this is not late


@compiled
def settle_expired(rows: Rows, table: FloatArray, now: float) -> int:
    """Takes promises that cannot be kept any more out of the way of the others.

    A request becomes EXPIRED if its first token would be late even if the engine did nothing
    else. The deadlines of a request that is far behind its pace restart at `now`. Returns how
    many were settled.

    An EXPIRED request is PROMISED again, at the cost of others, once its turn has come; from its
    first token on it is due by its pace.
    """
    settled = 0
    for i in range(len(rows)):
        if rows[i, KIND] == EXPIRED and (rows[i, GENERATED] > 0 or now >= _turn_s(rows, i)):
            rows[i, KIND] = PROMISED
            if rows[i, GENERATED] == 0:
                rows[i, DEADLINE] = now + IN_TURN * prompt_s(rows, i, table)
        if rows[i, KIND] != PROMISED or rows[i, AVAILABLE] > now or rows[i, DEADLINE] == np.inf:
            continue
        if rows[i, GENERATED] == 0:
            if now + prompt_s(rows, i, table) > rows[i, DEADLINE] + ROUNDING_S:
                rows[i, KIND] = EXPIRED
                settled += 1
        elif now > rows[i, DEADLINE] + GIVEN_UP * rows[i, TPOT]:
            rows[i, DEADLINE] = now
            settled += 1
    return settled


@inlined
def _turn_s(rows: Rows, i: int) -> float:
    """When an EXPIRED prompt is served at the cost of others: the looser its TTFT, the later."""
    due_s = rows[i, DEADLINE]
    return float(due_s + max(LEAST_TURN_S, TURN * (due_s - rows[i, AVAILABLE])))
