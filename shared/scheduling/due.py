"""Computes when the next token of a row is due, for engine and planner alike. Compiled."""

import numpy as np

from shared.batch_time.table import FloatArray
from shared.compiled import compiled, inlined
from shared.scheduling.rows import DEADLINE, GENERATED, GRACE, TPOT, Rows


@inlined
def due_after(rows: Rows, i: int, gain: float, now: float) -> float:
    """When the next token of a row is due after `gain` tokens at `now`, which it does not count."""
    if rows[i, GENERATED] == 0 and rows[i, GRACE] < np.inf:
        return float(now + rows[i, GRACE] + rows[i, TPOT])
    return float(rows[i, DEADLINE] + rows[i, TPOT] * gain)


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
