"""Computes when the next token of a row is due, for engine and planner alike. Compiled."""

import numpy as np

from shared.batch_time.table import FloatArray
from shared.compiled import compiled, inlined
from shared.scheduling.rows import DEADLINE, GENERATED, GRACE, TPOT


@inlined
def due_after(row: FloatArray, gain: float, now: float) -> float:
    """When the next token is due after `gain` tokens at `now`, which the row does not count yet."""
    if row[GENERATED] == 0 and row[GRACE] < np.inf:
        return float(now + row[GRACE] + row[TPOT])
    return float(row[DEADLINE] + row[TPOT] * gain)


@compiled
def change_pace(row: FloatArray, tpot_s: float, ahead: int, now: float) -> None:
    """Switches a row to the pace of a new stage, of which it counts `ahead` tokens already. The
    stage's deadlines start at `now`, or with an infinite GRACE continue those of the stage before.
    """
    if row[GRACE] < np.inf:
        row[DEADLINE] = now + (1 + ahead) * tpot_s
    else:
        row[DEADLINE] += (1 + ahead) * (tpot_s - row[TPOT])
    row[TPOT] = tpot_s
