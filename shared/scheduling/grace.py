"""How much later than its pace the tokens of an answer may come, and the pace that makes up for it.
Pure; it knows no engine.

A pace is promised as a mean over the answer. Held from the first token on it leaves an answer that
begins nothing to wait with, and every prompt beside it has to be cut small. So what can be made up
for within the tokens that the answer most likely has is granted to its beginning.
"""

import math
from dataclasses import dataclass

from shared.scheduling.tuning import (
    LEAST_PACE,
    LEAST_PACE_WHEN_MOVED,
    LEAST_PACE_WITH_DRAFTS,
    MOST_SLACK,
)


@dataclass(frozen=True, slots=True)
class Grace:
    """`later_s`: every token after the first is due so much later than the paces up to it, counted
    from when that came; infinite: from when it was due. `pace_s` is the one to be held then.
    """

    pace_s: float
    later_s: float = 0.0

    @property
    def by_deadlines(self) -> bool:
        return math.isinf(self.later_s)


def by_deadlines(tpot_s: float) -> Grace:
    """For an answer whose every token has a deadline: what its first token was early by is all that
    the others may be late by.
    """
    return Grace(tpot_s, math.inf)


def grace_of(
    tpot_s: float,
    later_tokens: float,
    *,
    least_pace_s: float = 0.0,
    moved_s: float = 0.0,
    gain: float = 1.0,
) -> Grace:
    """For an answer that has at least `later_tokens` after its first, promised `tpot_s` as their
    mean. Unless its KV takes `moved_s` to arrive, no pace below `least_pace_s` comes of it.
    `gain` is what a step gives it with drafts, in tokens.
    """
    if math.isinf(tpot_s) or later_tokens < 1:
        return Grace(tpot_s)
    if moved_s > 0:
        least_s = LEAST_PACE_WHEN_MOVED * tpot_s
    else:
        share = max(LEAST_PACE_WITH_DRAFTS, LEAST_PACE / gain)
        least_s = max(share * tpot_s, min(tpot_s, least_pace_s))
    later_s = min(MOST_SLACK * tpot_s + moved_s, later_tokens * (tpot_s - least_s))
    later_s = max(later_s, moved_s)
    pace_s = tpot_s - later_s / later_tokens
    return Grace(pace_s, later_s) if pace_s > 0 else Grace(tpot_s)
