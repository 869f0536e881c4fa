"""How much an engine may promise beyond a steady state, by the lead of its running requests.

A steady state of all promised TPOTs is the bound only while no request is ahead. A request that was
served faster than its TPOT can skip steps as long as its lead lasts, and other requests end
meanwhile: a mean TPOT over thousands of tokens leaves minutes for that.
"""

import numpy as np

from services.planner.tuning import LEAD_KEPT, LEAD_OF_ONE, LEAD_SPENT_WITHIN, MOST_UTILIZATION
from shared.compiled import compiled
from shared.scheduling.rows import DEADLINE, GENERATED, KIND, PROMISED, REMAINING, TPOT, Rows
from shared.scheduling.shares import step_pace_s


def max_utilization(rows: Rows, now: float) -> float:
    """The share of its time that an engine may promise: 1, and more while running requests are
    ahead of their TPOT. It is the limit of `steady_state_utilization`.
    """
    return float(_max_utilization(rows, now))


@compiled
def _max_utilization(rows: Rows, now: float) -> float:
    running, lead = 0, 0.0
    for i in range(len(rows)):
        runs = rows[i, KIND] == PROMISED and rows[i, GENERATED] > 0 and rows[i, REMAINING] > 0
        if runs and rows[i, TPOT] < np.inf:
            running += 1
            lead += min(LEAD_OF_ONE, max(0.0, (rows[i, DEADLINE] - now) / step_pace_s(rows, i)))
    spare = lead / max(1, running) - LEAD_KEPT
    return float(min(MOST_UTILIZATION, 1.0 + max(0.0, spare) / LEAD_SPENT_WITHIN))
