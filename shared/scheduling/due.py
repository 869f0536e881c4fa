"""When the next token of a row is due, as its engine and its planner count it. Compiled; it gives
nobody tokens.
"""

import numpy as np

from shared.batch_time.table import Numbers
from shared.compiled import compiled
from shared.scheduling.rows import DUE, GRACE, PRODUCED, TPOT


@compiled
def due_after(row: Numbers, gain: float, now: float) -> float:
    """For a row that gives `gain` tokens at `now`, which are not counted in it yet."""
    if row[PRODUCED] == 0 and row[GRACE] < np.inf:
        return float(now + row[GRACE] + row[TPOT])
    return float(row[DUE] + row[TPOT] * gain)


@compiled
def change_pace(row: Numbers, tpot_s: float, ahead: int, now: float) -> None:
    """A new stage begins: it is promised on its own, or goes on from where the one before was due.
    `ahead`: how many of its tokens are counted in the row already.
    """
    if row[GRACE] < np.inf:
        row[DUE] = now + (1 + ahead) * tpot_s
    else:
        row[DUE] += (1 + ahead) * (tpot_s - row[TPOT])
    row[TPOT] = tpot_s
