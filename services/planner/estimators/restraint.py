"""Which prompts let others go first while many come: dear ones, as long as they have time. Pure.

In a burst the time that one long prompt takes would serve several short ones, and not all can be
served. Held back, it goes when the burst is over or at the last moment at which it still can; who
runs out of time in between are then the fewest (a rule in the spirit of Moore and Hodgson, 1968).
"""

import math
from dataclasses import dataclass

from services.planner.tuning import FRESH_PROMPTS, LONG_PROMPT, NEXT_LOOK_S, SURELY_IN_TIME


@dataclass(slots=True)
class Restraint:
    """What prompts take of an engine and how long they may take, on average of those that asked."""

    takes_s: float = math.nan
    ttft_s: float = math.nan

    def learn(self, takes_s: float, ttft_s: float) -> None:
        """A prompt with a target for its first token was decided on."""
        if math.isnan(self.takes_s):
            self.takes_s, self.ttft_s = takes_s, ttft_s
        self.takes_s += FRESH_PROMPTS * (takes_s - self.takes_s)
        self.ttft_s += FRESH_PROMPTS * (ttft_s - self.ttft_s)

    def holds_back(self, takes_s: float, left_s: float, ahead_s: float) -> bool:
        """Whether a prompt that takes so long and is due in `left_s` should wait, where an engine
        has `ahead_s` of promised prompts to compute on average.
        """
        if math.isnan(self.takes_s) or left_s <= SURELY_IN_TIME * takes_s + NEXT_LOOK_S:
            return False
        return takes_s * ahead_s > LONG_PROMPT * self.takes_s * self.ttft_s
