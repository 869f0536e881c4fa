"""Which prompts let others go first while many come: dear ones, as long as they have time. Pure.

In a burst the time that one long prompt takes would serve several short ones, and not all can be
served. Held back, it goes when the burst is over or at the last moment at which it still can; who
runs out of time in between are then the fewest (a rule in the spirit of Moore and Hodgson, 1968).
"""

import math
from dataclasses import dataclass
from typing import Final

_FRESH: Final = 0.02  # weight of the newest prompt in the means
_DEAR: Final = 0.3
_IN_TIME: Final = 1.3  # times what it takes that a prompt needs to be in time for sure
_NEXT_LOOK_S: Final = 0.1  # until it is decided again, and the step that runs then has ended


@dataclass(slots=True)
class Restraint:
    """What prompts take of an engine and how long they may take, on average of those that asked."""

    takes_s: float = math.nan
    ttft_s: float = math.nan

    def learn(self, takes_s: float, ttft_s: float) -> None:
        """A prompt with a target for its first token was decided on."""
        if math.isnan(self.takes_s):
            self.takes_s, self.ttft_s = takes_s, ttft_s
        self.takes_s += _FRESH * (takes_s - self.takes_s)
        self.ttft_s += _FRESH * (ttft_s - self.ttft_s)

    def holds_back(self, takes_s: float, left_s: float, ahead_s: float) -> bool:
        """Whether a prompt that takes so long and is due in `left_s` should wait, where an engine
        has `ahead_s` of promised prompts to compute on average.
        """
        if math.isnan(self.takes_s) or left_s <= _IN_TIME * takes_s + _NEXT_LOOK_S:
            return False
        return takes_s * ahead_s > _DEAR * self.takes_s * self.ttft_s
