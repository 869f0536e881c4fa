"""The survival function of answer lengths by class, from running and ended answers.

Short answers end first, so ended answers alone would make all look short until the long ones end.
The Kaplan-Meier estimator (1958) counts how many answers reached each bin of tokens, and how many
of these ended in it. Beyond the longest answer so far, answers end as often as in the later half of
its length (an exponential tail), and go on for as long again at most.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from services.planner.tuning import SURVIVAL_FADES, TELLING_SURVIVALS, UNKNOWN_TOKENS
from shared.batch_time.table import FloatArray

BIN_TOKENS: Final = 16
_BINS = 2048
_PRIOR_BINS = UNKNOWN_TOKENS // BIN_TOKENS
_KEPT_CLASSES, _KEPT_REQUESTS = 256, 65_536
_NEVER: Final = 1e-300  # a chance above 0, so that what is beyond can be compared with it
_MIDDLES_TOKENS: Final = BIN_TOKENS * (np.arange(_BINS) + 0.5)
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSums:
    """Means of the answers of a class: their `tokens`, and the sum over these of the tokens of the
    answer before each (`tokens_before`).
    """

    tokens: float
    tokens_before: float

    def token_steps(self, prompt_tokens: FloatArray) -> FloatArray:
        """The tokens of KV that a request holds, summed over its steps of one token each."""
        held: FloatArray = self.tokens * prompt_tokens + self.tokens_before
        return held


@dataclass(slots=True, eq=False)
class _Counts:
    """Counts of one class by bin: `came` answers reached it, `ended` of these ended in it."""

    came: Shares = field(default_factory=lambda: np.zeros(_BINS))
    ended: Shares = field(default_factory=lambda: np.zeros(_BINS))
    longer: Shares | None = None
    sums: AnswerSums | None = None
    later_tokens: Shares | None = None

    @property
    def known(self) -> bool:
        return bool(self.ended.sum() >= TELLING_SURVIVALS)

    def share(self) -> Shares:
        longer = self.longer
        if longer is None:
            goes_on = 1.0 - self._hazard()
            longer = np.concatenate([[1.0], np.cumprod(goes_on)[:-1]])
            longer = self.longer = np.maximum(longer, _NEVER)
            self.sums = self.later_tokens = None
        return longer

    def means(self) -> AnswerSums:
        by_bin = self._tokens_by_bin()
        if self.sums is None:
            self.sums = AnswerSums(
                tokens=float(by_bin.sum()), tokens_before=float(by_bin @ _MIDDLES_TOKENS)
            )
        return self.sums

    def mean_later_tokens(self) -> Shares:
        by_bin = self._tokens_by_bin()
        if self.later_tokens is None:
            later = np.cumsum(by_bin[::-1])[::-1]
            self.later_tokens = np.maximum(1.0, later / self.share())
        return self.later_tokens

    def _tokens_by_bin(self) -> Shares:
        """The mean tokens of an answer in each bin."""
        longer = self.share()
        by_bin: Shares = BIN_TOKENS * (longer + np.append(longer[1:], 0.0)) / 2
        return by_bin

    def _hazard(self) -> Shares:
        """The chance to end in each bin. Beyond the longest answer so far it is the mean of the
        later half of its length, and at least such that answers go on for as long again. Where all
        ended, one more is taken to go on (rule of succession): no answer is the longest for sure.
        """
        hazard: Shares = self.ended / np.maximum(self.came, self.ended + 1.0)
        reached = int(np.flatnonzero(self.came).max(initial=-1)) + 1
        later = slice(reached // 2, reached)
        ended = float(self.ended[later].sum())
        often = ended / max(float(self.came[later].sum()), ended + 1.0)
        hazard[self.came == 0] = max(often, 1.0 / max(reached, _PRIOR_BINS))
        return hazard

    def fade(self) -> None:
        if self.ended.sum() > SURVIVAL_FADES:
            self.came *= 0.5
            self.ended *= 0.5


class Survival:
    """Survival functions by class; requests are identified by the key of their row. Bounded."""

    def __init__(self) -> None:
        self._classes: OrderedDict[str, _Counts] = OrderedDict()
        self._reached: OrderedDict[float, int] = OrderedDict()  # by key, bins counted so far

    def goes_on(self, class_name: str, key: float, produced: float) -> None:
        """Notes that a running answer has so many tokens."""
        self._count(class_name, key, min(_BINS, (int(produced) - 1) // BIN_TOKENS + 1))
        while len(self._reached) > _KEPT_REQUESTS:
            self._reached.popitem(last=False)

    def ends(self, class_name: str, key: float, tokens: float) -> None:
        """Notes that an answer ended by itself with so many tokens."""
        last = min(_BINS - 1, max(0, int(tokens) - 1) // BIN_TOKENS)
        counts = self._count(class_name, key, last + 1)
        counts.ended[last] += 1.0
        counts.fade()
        self._reached.pop(key, None)

    def knows(self, class_name: str) -> bool:
        """Whether enough of its answers have ended."""
        counts = self._classes.get(class_name)
        return counts is not None and counts.known

    def longer(self, class_name: str) -> Shares:
        """The share of answers longer than 0, 1, 2, ... times BIN_TOKENS."""
        return (self._classes.get(class_name) or _Counts()).share()

    def later_tokens(self, class_name: str) -> Shares:
        """The mean number of tokens that answers get after 0, 1, 2, ... BIN_TOKENS; at least 1."""
        return (self._classes.get(class_name) or _Counts()).mean_later_tokens()

    def sums(self, class_name: str) -> AnswerSums:
        """The mean answer of a class."""
        return (self._classes.get(class_name) or _Counts()).means()

    def _count(self, class_name: str, key: float, reached: int) -> _Counts:
        counts = self._classes.get(class_name)
        if counts is None:
            counts = self._classes[class_name] = _Counts()
            while len(self._classes) > _KEPT_CLASSES:
                self._classes.popitem(last=False)
        before = self._reached.get(key, 0)
        if reached > before:
            counts.came[before:reached] += 1.0
            self._reached[key] = reached
        counts.longer = None
        return counts
