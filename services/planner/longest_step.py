"""How long a step may last where no deadline is near, and how long recent prompts may wait for its
end, by their TTFT targets.

A request that arrives while a step runs waits for its end, so that long steps miss tight targets.
Every step has a fixed time beside its prompt tokens, so that short steps compute fewer prompts.
"""

import math
from collections import OrderedDict, deque

import numpy as np

from services.planner.tuning import ASKED_WINDOW_S
from shared.batch_time.table import (
    CHUNKS,
    COUNTS,
    DECODES,
    EARLIER,
    LONGEST_PROMPT,
    PAIRS,
    PREFILL,
    FloatArray,
    StepTable,
    sure_s,
)
from shared.bounded import remember
from shared.compiled import compiled

# Columns of a recent prompt. Only ratios of weights matter; the TTFT counts from the arrival.
_WEIGHT, _TTFT_S, _CACHED, _TOKENS = range(4)
_KEPT_CLASSES, _KEPT_PROMPTS = 64, 32  # of an engine, of a class
# Lengths that are tried, in steps of one decode. Below two, as much would be lost by the fixed time
# as tight prompts could gain; beyond 64 the fixed time is less than 2 % of a step.
_SHORTEST, _LONGEST, _RATIO = 2.0, 64.0, 1.09


class RecentPrompts:
    """The latest prompts with a TTFT target that one engine got. Bounded."""

    def __init__(self) -> None:
        self._classes: OrderedDict[str, deque[tuple[float, float, float, float]]] = OrderedDict()
        self._rows: FloatArray | None = None  # until another prompt comes, or the oldest is too old
        self._good_until_s = math.inf

    def note(
        self, class_name: str, ttft_s: float, cached_tokens: int, tokens: int, now: float
    ) -> None:
        """Notes a prompt of `tokens` to compute after `cached_tokens`."""
        latest = self._classes.get(class_name) or deque(maxlen=_KEPT_PROMPTS)
        latest.append((now, ttft_s, float(cached_tokens), float(tokens)))
        remember(self._classes, class_name, latest, _KEPT_CLASSES)
        self._rows = None

    def rows(self, now: float) -> FloatArray:
        """Those of the last two windows of ASKED_WINDOW_S, as `longest_step_s` takes them. All
        classes weigh the same: a class that asks seldom keeps its targets beside bursts of others.
        """
        if self._rows is None or now >= self._good_until_s:
            rows: list[tuple[float, float, float, float]] = []
            self._good_until_s = math.inf
            for latest in self._classes.values():
                recent = [one for one in latest if now - one[0] < 2 * ASKED_WINDOW_S]
                rows += [(1 / len(recent), *one[1:]) for one in recent]
                if recent:
                    ends_s = recent[0][0] + 2 * ASKED_WINDOW_S
                    self._good_until_s = min(self._good_until_s, ends_s)
            self._rows = np.array(rows).reshape(-1, 4)
        return self._rows


def longest_step_s(table: StepTable, prompts: FloatArray) -> float:
    """The length of full steps, in seconds, with which the most prompts meet their TTFT targets; 0
    (no limit) where no length lets any of them do so.

    Full steps of S seconds, F of them fixed (the time of one decode), compute prompts for a share
    1 - F/S of the time. A prompt that arrives during such a step waits between 0 and S seconds, all
    equally likely. So the best length maximizes (1 - F/S) times the mean chance that the wait and
    the prompt's own steps take no longer than its target.

    `prompts` has shape (n, 4): weight, TTFT in seconds, cached tokens, and tokens to compute.
    """
    return float(_best_s(table.numbers, prompts))


def prompt_waits(table: StepTable, prompts: FloatArray) -> FloatArray:
    """The weight of each of these prompts, and the seconds that it may wait for a step to end if it
    is then computed in one step of its own. Of shape (n, 2).
    """
    waits_s = prompts[:, _TTFT_S] - _alone_s(table.numbers, prompts)
    return np.column_stack((prompts[:, _WEIGHT], waits_s))


@compiled
def _best_s(table: FloatArray, prompts: FloatArray) -> float:
    counts = np.zeros(COUNTS)
    counts[DECODES] = 1.0
    fixed_s = sure_s(table, counts)
    if not fixed_s > 0:  # nothing is known of this engine's steps
        return 0.0
    work_s = np.maximum(0.0, _alone_s(table, prompts) - fixed_s)
    best, best_s, step_s = 0.0, 0.0, _SHORTEST * fixed_s
    while step_s <= _LONGEST * fixed_s:
        met = 0.0
        for i in range(len(prompts)):
            own_s = work_s[i] + fixed_s
            if own_s > step_s:
                own_s = work_s[i] * step_s / (step_s - fixed_s)
            chance = (prompts[i, _TTFT_S] - own_s) / step_s
            met += prompts[i, _WEIGHT] * min(1.0, max(0.0, chance))
        value = met * (1 - fixed_s / step_s)
        if value > best:
            best, best_s = value, step_s
        step_s *= _RATIO
    return best_s


@compiled
def _alone_s(table: FloatArray, prompts: FloatArray) -> FloatArray:
    """Seconds of a step of each prompt alone."""
    counts, takes_s = np.zeros(COUNTS), np.zeros(len(prompts))
    for i in range(len(prompts)):
        cached, tokens = prompts[i, _CACHED], prompts[i, _TOKENS]
        counts[CHUNKS], counts[PREFILL], counts[EARLIER] = 1.0, tokens, cached
        counts[PAIRS] = tokens * (cached + tokens / 2)
        counts[LONGEST_PROMPT] = cached + tokens
        takes_s[i] = sure_s(table, counts)
    return takes_s
