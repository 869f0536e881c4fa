"""Defers long prompts in a burst while they have time.

In a burst the time of one long prompt would serve several short ones, and not all can be served. A
deferred prompt is computed after the burst, or at the last moment at which it is still in time. So
the fewest requests are late (in the spirit of Moore and Hodgson, 1968).
"""

import math
from dataclasses import dataclass

from services.planner.tuning import FRESH_PROMPTS, LONG_PROMPT, NEXT_LOOK_S, SURELY_IN_TIME


@dataclass(slots=True)
class LongPromptDeferral:
    """EWMAs of the seconds that prompts take of an engine, and of their TTFT targets."""

    takes_s: float = math.nan
    ttft_s: float = math.nan

    def learn(self, takes_s: float, ttft_s: float) -> None:
        """Learns from a decided prompt with a TTFT target."""
        if math.isnan(self.takes_s):
            self.takes_s, self.ttft_s = takes_s, ttft_s
        self.takes_s += FRESH_PROMPTS * (takes_s - self.takes_s)
        self.ttft_s += FRESH_PROMPTS * (ttft_s - self.ttft_s)

    def defers(self, takes_s: float, left_s: float, ahead_s: float) -> bool:
        """Whether to defer a prompt that takes `takes_s` and is due in `left_s`. Engines have
        `ahead_s` of promised prompts with a TTFT to compute on average; others come after them.
        """
        if math.isnan(self.takes_s) or left_s <= SURELY_IN_TIME * takes_s + NEXT_LOOK_S:
            return False
        return takes_s * ahead_s > LONG_PROMPT * self.takes_s * self.ttft_s
