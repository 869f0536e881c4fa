"""How much later than its pace the tokens of an answer may come, and the pace that makes up for it.

A pace is promised as a mean over the answer. Held from the first token on, it would leave the start
of an answer no slack, and every prompt beside it would have to be cut small. So the start gets as
much slack as the most likely length of the answer can make up for.
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
    from when the first came (infinite: from when it was due). `pace_s`: the pace to keep then.
    """

    pace_s: float
    later_s: float = 0.0

    @property
    def by_deadlines(self) -> bool:
        return math.isinf(self.later_s)


def by_deadlines(tpot_s: float) -> Grace:
    """The slack of an answer with a deadline for each token (`pacing: deadlines`): the time by
    which its first token came early.
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
    """The slack of an answer with a promised mean of `tpot_s` over at least `later_tokens` after
    its first. The pace is not below `least_pace_s` unless the answer's KV takes `moved_s` to
    arrive. `gain` is the mean number of tokens that a step with drafts yields.
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
