"""Requests without a promise that may still be in time. Compiled.

Time that promises leave over goes first to requests that can still meet their deadline, in the
order of their deadlines (EDF).
"""

import numpy as np

from shared.batch_time.table import FloatArray
from shared.compiled import inlined
from shared.scheduling.prompt_times import prompt_s
from shared.scheduling.rows import DEADLINE, GENERATED, TPOT, Rows
from shared.scheduling.tuning import MAY_BE_LATE


@inlined
def may_be_in_time(rows: Rows, i: int, table: FloatArray, now: float) -> bool:
    """Whether a request without a promise can still meet its targets."""
    if rows[i, DEADLINE] == np.inf:
        return bool(rows[i, TPOT] < np.inf)
    if rows[i, GENERATED] > 0:
        return bool(now <= rows[i, DEADLINE] + MAY_BE_LATE * rows[i, TPOT])
    return bool(now + prompt_s(rows, i, table) <= rows[i, DEADLINE])
