"""What every request of a run wanted and what it got, as one row of numbers each. Judges nobody.

Times are seconds of the run. A request has up to two stages, each with a pace of its own; token n
is due a pace after token n - 1, the first one at the arrival plus the TTFT target.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.compiled import compiled

Lives = npt.NDArray[np.float64]
(
    # wanted
    ARRIVES,
    TTFT,  # target; inf: not asked
    PACE,  # of the first stage; inf: not asked
    LATER_PACE,  # of the second
    CHANGES_AT,  # tokens of the first stage; all of them where there is but one
    OUTPUT,  # tokens that it really gives
    ACCEPTANCE,  # chance that a draft of it is accepted after those before it
    BY_DEADLINES,  # 1: every token by its deadline was asked for, 0: a mean pace
    # got
    ADMISSION,  # one of the numbers below
    PLACED,  # when it was decided
    STARTED,  # when the first step with a part of its prompt began
    FIRST,
    SECOND,
    CHANGED,  # when the first stage's last token came
    LAST,
    TOKENS,
    WORST_LATE,  # of all tokens against the line of deadlines that starts at the arrival
    SLOW_WINDOWS,  # of ten tokens that took longer than ten paces
    WINDOW,  # when the running window began
    MOVED,  # seconds of its KV's way to another engine
    EVICTED,  # times
) = range(21)
COLUMNS: Final = 21
# In ADMISSION. Never came: an earlier call of its program was refused, or did not end.
UNDECIDED, ADMITTED, BEST_EFFORT, REFUSED, NEVER_CAME = range(5)
_WINDOW_TOKENS = 10


def new_lives(requests: int) -> Lives:
    """Of requests that ask for nothing and have got nothing."""
    lives = np.zeros((requests, COLUMNS))
    lives[:, [TTFT, PACE, LATER_PACE, CHANGES_AT]] = math.inf
    lives[:, [PLACED, STARTED, FIRST, SECOND, CHANGED, LAST]] = math.nan
    lives[:, WORST_LATE] = -math.inf
    return lives


@compiled
def give(life: npt.NDArray[np.float64], tokens: float, now: float) -> None:
    """So many tokens of one request come at once."""
    for _ in range(int(tokens)):
        n = life[TOKENS]
        if n == 0:
            life[FIRST] = life[WINDOW] = now
        elif n == 1:
            life[SECOND] = now
        due_s = life[ARRIVES] + life[TTFT] + paces_s(life, n)
        life[WORST_LATE] = max(life[WORST_LATE], now - due_s)
        if n > 0 and n % _WINDOW_TOKENS == 0:
            allowed_s = paces_s(life, n) - paces_s(life, n - _WINDOW_TOKENS)
            if now - life[WINDOW] > allowed_s + 1e-9:
                life[SLOW_WINDOWS] += 1
            life[WINDOW] = now
        life[LAST] = now
        life[TOKENS] = n + 1
        if n + 1 == life[CHANGES_AT]:
            life[CHANGED] = now


@compiled
def paces_s(life: npt.NDArray[np.float64], tokens: float) -> float:
    """From the first token to the one after so many, by what was asked for."""
    early = min(tokens, life[CHANGES_AT] - 1)  # each stage's first token is at its own pace
    late = tokens - early
    total_s = 0.0
    if early > 0:
        total_s += early * life[PACE]
    if late > 0:
        total_s += late * life[LATER_PACE]
    return total_s
