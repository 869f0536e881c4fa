"""Models and estimates how many drafted tokens a verification accepts.

The count is a truncated geometric: a draft counts only if all before it were accepted (SLOs-Serve,
section 4.3).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from shared.batch_time.table import FloatArray
from shared.compiled import compiled
from shared.engines import Drafts
from shared.scheduling.tuning import (
    ACCEPTANCE_HALF_LIFE_S,
    CONFIDENCE,
    HIGHEST_ACCEPTANCE,
    LOW_SHARE,
    LUCK_WINDOW,
    PRIOR_ACCEPTANCE,
    PRIOR_DRAFTS,
)

_HALVINGS = 40


class Caution(StrEnum):
    """The statistic of produced tokens that a plan uses.

    EXPECTED: the mean. FLOOR: the mean rounded down, as in the code of the SLOs-Serve authors. LOW:
    what nine in ten runs of a few verifications reach, so that short windows of tokens keep their
    pace.
    """

    EXPECTED = "expected"
    FLOOR = "floor"
    LOW = "low"


_EXPECTED, _FLOOR, _CAUTIOUS = range(3)  # the same for compiled code
_NUMBERS = {Caution.EXPECTED: _EXPECTED, Caution.FLOOR: _FLOOR, Caution.LOW: _CAUTIOUS}


def produced_tokens(alpha: float, verified: int, caution: Caution = Caution.EXPECTED) -> float:
    """Tokens that a step with `verified` tokens of a request yields it, at least 1.

    `verified` is the number of drafts plus one, the token of plain decoding. The mean is Acc(n) =
    (1 - alpha^n) / (1 - alpha). The result never falls with `alpha` or `verified`.
    """
    return float(_produced(float(alpha), verified, _NUMBERS[caution]))


def produced_by_length(alphas: Sequence[float], longest: int, caution: Caution) -> FloatArray:
    """`produced_tokens` for each alpha (rows) and for 1 to `longest` verified tokens (columns)."""
    table = np.empty((len(alphas), longest))
    _fill(table, np.array(alphas, dtype=np.float64), _NUMBERS[caution])
    return table


@compiled
def _fill(table: FloatArray, alphas: FloatArray, caution: int) -> None:
    for row in range(table.shape[0]):
        for place in range(table.shape[1]):
            table[row, place] = _produced(alphas[row], place + 1, caution)


@compiled
def mean_tokens(alpha: float, verified: int) -> float:
    """The mean of `produced_tokens`."""
    mean, reached = 0.0, 1.0
    for _ in range(verified):
        mean += reached
        reached *= alpha
    return mean


@compiled
def _produced(alpha: float, verified: int, caution: int) -> float:
    mean = mean_tokens(alpha, verified)
    if caution == _FLOOR:
        return float(np.floor(mean + 1e-9))
    return mean if caution == _EXPECTED else min(mean, _low(alpha, verified))


@compiled
def _low(alpha: float, verified: int) -> float:
    """The exact LOW_SHARE quantile of the mean tokens over LUCK_WINDOW verifications."""
    most = LUCK_WINDOW * verified
    chances = np.zeros(most + 1)  # the probability of each sum of tokens
    chances[0] = 1.0
    for _ in range(LUCK_WINDOW):
        before = chances.copy()
        chances[:] = 0.0
        reached = 1.0  # the probability that one verification yields `tokens` or more
        for tokens in range(1, verified + 1):
            stays = alpha if tokens < verified else 0.0
            chances[tokens:] += reached * (1.0 - stays) * before[: most + 1 - tokens]
            reached *= alpha
    total, below = 0, chances[0]
    while below < LOW_SHARE and total < most:
        total += 1
        below += chances[total]
    return total / LUCK_WINDOW


@dataclass(slots=True, kw_only=True)
class _Counts:
    """Exponentially decayed counts of one class; `at_s` is when they last decayed."""

    at_s: float
    verifications: float = 0.0
    drafted: float = 0.0
    accepted: float = 0.0

    def fade(self, now: float, half_life_s: float) -> None:
        kept = 0.5 ** (max(0.0, now - self.at_s) / half_life_s)
        self.verifications *= kept
        self.drafted *= kept
        self.accepted *= kept
        self.at_s = max(self.at_s, now)

    def add(self, drafts: Drafts) -> None:
        self.verifications += drafts.verifications
        self.drafted += drafts.drafted_tokens
        self.accepted += min(drafts.accepted_tokens, drafts.drafted_tokens)


class Acceptance:
    """Estimates the acceptance rate of each class from exponentially decayed counts.

    `prior` weighs as much as `prior_tokens` observed drafts. As counts decay with `half_life_s`, a
    class that stopped speculating returns to the prior and is tried again. The `most_classes` that
    drafted last are kept.
    """

    def __init__(
        self,
        *,
        prior: float = PRIOR_ACCEPTANCE,
        prior_tokens: float = PRIOR_DRAFTS,
        half_life_s: float = ACCEPTANCE_HALF_LIFE_S,
        most_classes: int = 256,
    ) -> None:
        self._prior = prior
        self._prior_tokens = prior_tokens
        self._half_life_s = half_life_s
        self._most_classes = most_classes
        self._counts: dict[str, _Counts] = {}

    def observe(self, drafts: Iterable[Drafts], now: float) -> None:
        for each in drafts:
            if each.verifications <= 0 or each.drafted_tokens <= 0:
                continue
            counts = self._counts.pop(each.class_name, None) or _Counts(at_s=now)
            counts.fade(now, self._half_life_s)
            counts.add(each)
            self._counts[each.class_name] = counts  # the class seen last is dropped last
            if len(self._counts) > self._most_classes:
                del self._counts[next(iter(self._counts))]

    def alpha(self, class_name: str, now: float) -> float:
        """The estimated probability that a draft is accepted, given that all before it were."""
        return self._estimate(class_name, now)[0]

    def cautious_alpha(self, class_name: str, now: float) -> float:
        """Wilson's lower bound of `alpha`, one-sided with 95 % confidence."""
        return _lower_bound(*self._estimate(class_name, now))

    def _estimate(self, class_name: str, now: float) -> tuple[float, float]:
        """Alpha, and the number of drafts that were accepted or rejected, the prior's included."""
        counts = self._counts.get(class_name)
        if counts is None:
            return self._prior, self._prior_tokens
        counts.fade(now, self._half_life_s)
        alpha = _likeliest(counts, self._prior, self._prior_tokens)
        rejected = counts.verifications * (1 - alpha ** _drafts_each(counts))
        return alpha, counts.accepted + rejected + self._prior_tokens


def _drafts_each(counts: _Counts) -> float:
    return counts.drafted / counts.verifications if counts.verifications else 0.0


def _likeliest(counts: _Counts, prior: float, prior_tokens: float) -> float:
    """Accepted over accepted plus rejected: the maximum-likelihood alpha of a truncated geometric.

    Reports do not say how many verifications ended in a rejection, so the estimate is the fixed
    point at which that number equals its expectation, v (1 - alpha^n). Without a prior, v (alpha +
    ... + alpha^n) accepted drafts are expected there. With a prior it is the crossing of a rising
    and a falling function, found by bisection.
    """
    each = _drafts_each(counts)
    low, high = 0.0, HIGHEST_ACCEPTANCE
    for _ in range(_HALVINGS):
        alpha = (low + high) / 2
        expected = counts.verifications * alpha * (1 - alpha**each) / (1 - alpha)
        if expected > counts.accepted + prior_tokens * (prior - alpha) / (1 - alpha):
            high = alpha
        else:
            low = alpha
    return (low + high) / 2


def _lower_bound(share: float, trials: float) -> float:
    square = CONFIDENCE**2
    spread = CONFIDENCE * math.sqrt(share * (1 - share) / trials + square / (4 * trials**2))
    return max(0.0, (share + square / (2 * trials) - spread) / (1 + square / trials))
