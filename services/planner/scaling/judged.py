"""Judges whether a replayed request met its targets, or which role it was short of. Compiled."""

import numpy as np

from services.planner.scaling.fleet_rows import FIRST, GIVEN, LAST, LATE, Floats
from services.planner.scaling.recent_demand import ARRIVES, DUE, LATER, TPOT, Demands
from services.planner.scaling.routes import SHORT_OF_PREFILL, has_no_slo
from services.planner.tuning import TELLING_TOKENS
from shared.compiled import compiled
from shared.scheduling.expired import ROUNDING_S

# Verdicts: open, in time, late for want of one role, without targets, or impossible.
OPEN, KEPT, MISSED_PREFILL, MISSED_DECODE, NOT_ASKED, NEVER = range(6)


@compiled
def missed(demands: Demands, i: int, short_of: int) -> int:
    if has_no_slo(demands, i):
        return NOT_ASKED
    return MISSED_PREFILL if short_of == SHORT_OF_PREFILL else MISSED_DECODE


@compiled
def judged_of(demands: Demands, got: Floats, i: int) -> int:
    """The verdict of a request that has all its tokens."""
    if has_no_slo(demands, i):
        return NOT_ASKED
    if got[i, FIRST] > demands[i, ARRIVES] + demands[i, DUE] + ROUNDING_S:
        return MISSED_PREFILL
    if demands[i, LATER] == np.inf:
        return MISSED_DECODE if got[i, LATE] > ROUNDING_S else KEPT
    later = got[i, GIVEN] - 1
    took_s = got[i, LAST] - got[i, FIRST]
    return MISSED_DECODE if later > 0 and took_s > later * demands[i, TPOT] + ROUNDING_S else KEPT


@compiled
def so_far(demands: Demands, got: Floats, i: int, now: float, short_of: int) -> int:
    """The verdict of an unfinished request: open while it may still be in time."""
    if has_no_slo(demands, i):
        return NOT_ASKED
    if got[i, GIVEN] == 0:
        return missed(demands, i, short_of) if now > demands[i, ARRIVES] + demands[i, DUE] else OPEN
    return judged_of(demands, got, i) if got[i, GIVEN] >= TELLING_TOKENS else OPEN
