"""How much later than its pace the tokens of an answer may come, and the pace that makes up for it.
Pure; it knows no engine.

A pace is promised as a mean over the answer. Held from the first token on it leaves an answer that
begins nothing to wait with, and every prompt beside it has to be cut small. So what can be made up
for within the tokens that the answer most likely has is granted to its beginning.
"""

import math
from dataclasses import dataclass
from typing import Final

_MOST_PACES: Final = 4.0  # of grace, beside the time that KV is on its way
# Of the promised pace, engines are asked for no less: decodes take from prompts what that costs.
_LEAST_SHARE: Final = 0.95
# Drafts give some answers less than others, and all of them more than their pace needs: with them
# as much less as they give more, down to this.
_LEAST_WITH_DRAFTS: Final = 0.8
# Where KV moved, prompts are mostly elsewhere, and it may have to wait for the end of a step.
_LEAST_WHEN_MOVED: Final = 0.9


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
        least_s = _LEAST_WHEN_MOVED * tpot_s
    else:
        share = max(_LEAST_WITH_DRAFTS, _LEAST_SHARE / gain)
        least_s = max(share * tpot_s, min(tpot_s, least_pace_s))
    later_s = min(_MOST_PACES * tpot_s + moved_s, later_tokens * (tpot_s - least_s))
    later_s = max(later_s, moved_s)
    pace_s = tpot_s - later_s / later_tokens
    return Grace(pace_s, later_s) if pace_s > 0 else Grace(tpot_s)
