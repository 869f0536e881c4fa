"""How far running requests are ahead of their paces, and what an engine may promise for that. Pure.

Paces that all could hold for ever bound what is promised only while nobody is ahead. Whoever was
served faster than its pace can sit out steps for as long as its lead lasts, and in the meantime
others end: a mean over thousands of tokens leaves minutes for that.
"""

from typing import Final

import numpy as np

from shared.compiled import compiled
from shared.scheduling.rows import DUE, KIND, LEFT, PRODUCED, PROMISED, TPOT, Rows
from shared.scheduling.shares import step_pace_s

_KEPT: Final = 16.0  # paces of lead that are not spent: prompts need some
_SPENT_WITHIN: Final = 1024.0  # steps; the mean lead beyond what is kept is to last for so many
_MOST_OF_ONE: Final = 256.0  # paces that count of the lead of one request: it may end at any time
_MOST: Final = 1.25


def share_allowed(rows: Rows, now: float) -> float:
    """How much of its time an engine may promise away (`steady_share`): all of it, and more while
    those that run are ahead.
    """
    return float(_share_allowed(rows, now))


@compiled
def _share_allowed(rows: Rows, now: float) -> float:
    running, lead = 0, 0.0
    for i in range(len(rows)):
        runs = rows[i, KIND] == PROMISED and rows[i, PRODUCED] > 0 and rows[i, LEFT] > 0
        if runs and rows[i, TPOT] < np.inf:
            running += 1
            lead += min(_MOST_OF_ONE, max(0.0, (rows[i, DUE] - now) / step_pace_s(rows, i)))
    spare = lead / max(1, running) - _KEPT
    return float(min(_MOST, 1.0 + max(0.0, spare) / _SPENT_WITHIN))
