"""The targets and results of every request of a run, as one row of numbers each.

Times are seconds of the run. A request has up to two stages, each with its own TPOT target
(`PACE`, `LATER_PACE`). The first token is due at the arrival plus the TTFT target, each later one
a TPOT target after the one before.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.compiled import compiled

RequestMetrics = npt.NDArray[np.float64]
(
    # targets and load
    ARRIVES,
    TTFT,  # target; inf: none
    PACE,  # TPOT target of the first stage; inf: none
    LATER_PACE,  # of the second stage
    CHANGES_AT,  # tokens of the first stage; all of them with one stage
    OUTPUT,  # tokens that it generates
    ACCEPTANCE,  # probability that a draft is accepted after those before it
    BY_DEADLINES,  # 1: deadline pacing, 0: mean pacing
    # results
    ADMISSION,  # one of the numbers below
    PLACED,  # when it was decided
    STARTED,  # start of the first step with a part of its prompt
    FIRST,
    SECOND,
    CHANGED,  # time of the first stage's last token
    LAST,
    TOKENS,
    WORST_LATE,  # greatest delay of a token after its deadline
    SLOW_WINDOWS,  # windows of ten tokens that took longer than ten TPOT targets
    WINDOW,  # start of the running window
    MOVED,  # seconds of KV transfer to another engine
    EVICTED,  # number of evictions
) = range(21)
COLUMNS: Final = 21
# Values of ADMISSION. NEVER_CAME: an earlier call of its program was refused or did not end.
UNDECIDED, ADMITTED, BEST_EFFORT, REFUSED, NEVER_CAME = range(5)
_WINDOW_TOKENS = 10


def new_request_metrics(requests: int) -> RequestMetrics:
    """Rows of requests without targets and results."""
    metrics = np.zeros((requests, COLUMNS))
    metrics[:, [TTFT, PACE, LATER_PACE, CHANGES_AT]] = math.inf
    metrics[:, [PLACED, STARTED, FIRST, SECOND, CHANGED, LAST]] = math.nan
    metrics[:, WORST_LATE] = -math.inf
    return metrics


@compiled
def give(request: npt.NDArray[np.float64], tokens: float, now: float) -> None:
    """Records `tokens` tokens of one request that come at `now`."""
    for _ in range(int(tokens)):
        n = request[TOKENS]
        if n == 0:
            request[FIRST] = request[WINDOW] = now
        elif n == 1:
            request[SECOND] = now
        due_s = request[ARRIVES] + request[TTFT] + paces_s(request, n)
        request[WORST_LATE] = max(request[WORST_LATE], now - due_s)
        if n > 0 and n % _WINDOW_TOKENS == 0:
            allowed_s = paces_s(request, n) - paces_s(request, n - _WINDOW_TOKENS)
            if now - request[WINDOW] > allowed_s + 1e-9:
                request[SLOW_WINDOWS] += 1
            request[WINDOW] = now
        request[LAST] = now
        request[TOKENS] = n + 1
        if n + 1 == request[CHANGES_AT]:
            request[CHANGED] = now


@compiled
def paces_s(request: npt.NDArray[np.float64], tokens: float) -> float:
    """Target seconds from the first token to the one `tokens` later."""
    # Each stage's first token has that stage's target.
    early = min(tokens, request[CHANGES_AT] - 1)
    late = tokens - early
    total_s = 0.0
    if early > 0:
        total_s += early * request[PACE]
    if late > 0:
        total_s += late * request[LATER_PACE]
    return total_s
