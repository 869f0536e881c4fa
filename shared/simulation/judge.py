"""Sums over a record: requests that kept their targets, by each rule, and times by class."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from shared.simulation.lives import (
    ADMISSION,
    ADMITTED,
    ARRIVES,
    BEST_EFFORT,
    BY_DEADLINES,
    CHANGED,
    CHANGES_AT,
    FIRST,
    LAST,
    LATER_PACE,
    MOVED,
    NEVER_CAME,
    OUTPUT,
    PACE,
    PLACED,
    REFUSED,
    SLOW_WINDOWS,
    STARTED,
    TOKENS,
    TTFT,
    UNDECIDED,
    WORST_LATE,
    Lives,
)
from shared.simulation.record import Record

Mask = npt.NDArray[np.bool_]
_ROUNDING_S = 1e-6


class Rule(StrEnum):
    """The rule by which a request has kept its targets.

    MEAN: TTFT, and the mean TPOT of each stage. WINDOWS: TTFT, and every ten tokens within ten TPOT
    targets (SLOs-Serve, section 8). DEADLINES: token n by the arrival plus TTFT plus n - 1 TPOT
    targets. ASKED: MEAN or DEADLINES, as the request asked.
    """

    MEAN = "mean"
    WINDOWS = "windows"
    DEADLINES = "deadlines"
    ASKED = "asked"


class Cause(StrEnum):
    """The main cause of a miss."""

    REFUSED = "refused"
    BEST_EFFORT = "best_effort"  # not promised
    UNFINISHED = "unfinished"
    NEVER_CAME = "never_came"  # an earlier call of its program was refused or did not end
    HELD = "held"  # deferred: waited for a decision
    QUEUE = "queue"  # waited on its engine for its first step
    PREFILL = "prefill"
    DECODE = "decode"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Counts and times of a group of requests; times are nan if there are none.

    `kept` counts requests by rule; `promises_kept` counts admitted ones that kept the rule ASKED.
    """

    name: str
    requests: int
    admitted: int
    best_effort: int
    refused: int
    promises_kept: int
    kept: dict[Rule, int]
    causes: dict[Cause, int]
    ttft_s: tuple[float, float]  # p50, p99 of the admitted
    tpot_s: tuple[float, float]
    ttft_share: float  # p99 of the admitted as a share of the target
    tpot_share: float

    def attained(self, rule: Rule = Rule.MEAN) -> float:
        return self.kept[rule] / self.requests if self.requests else math.nan


def judge(record: Record) -> list[Share]:
    """All requests under the name `all`, then each class if there are several."""
    names = [request.call.class_name for request in record.requests]
    classes = np.array(names)
    shares = [share_of("all", record.lives)]
    if len(set(names)) < 2:
        return shares
    return shares + [share_of(one, record.lives[classes == one]) for one in sorted(set(names))]


def share_of(name: str, lives: Lives) -> Share:
    """Sums over these lives."""
    admission = lives[:, ADMISSION]
    promised = lives[admission == ADMITTED]
    first_s, pace_s = ttfts_s(promised), tpots_s(promised)
    return Share(
        name=name,
        requests=len(lives),
        admitted=len(promised),
        best_effort=int((admission == BEST_EFFORT).sum()),
        refused=int((admission == REFUSED).sum()),
        promises_kept=int(kept(promised, Rule.ASKED).sum()),
        kept={rule: int(kept(lives, rule).sum()) for rule in Rule},
        causes=causes(lives),
        ttft_s=_quantiles(first_s),
        tpot_s=_quantiles(pace_s),
        ttft_share=_quantiles(first_s / promised[:, TTFT])[1],
        tpot_share=_quantiles(worst_pace_share(promised))[1],
    )


def kept(lives: Lives, rule: Rule) -> Mask:
    """Whether each request ran, finished and was in time, promised or not."""
    if rule is Rule.ASKED:
        by_deadlines = lives[:, BY_DEADLINES] > 0
        return np.where(by_deadlines, kept(lives, Rule.DEADLINES), kept(lives, Rule.MEAN))
    served = (lives[:, ADMISSION] == ADMITTED) | (lives[:, ADMISSION] == BEST_EFFORT)
    done = served & finished(lives)
    if rule is Rule.DEADLINES:
        result: Mask = done & (lives[:, WORST_LATE] <= _ROUNDING_S)
        return result
    started: Mask = done & (ttfts_s(lives) <= lives[:, TTFT] + _ROUNDING_S)
    if rule is Rule.WINDOWS:
        held: Mask = started & (lives[:, SLOW_WINDOWS] == 0)
        return held
    paced: Mask = started & (worst_pace_share(lives) <= 1 + _ROUNDING_S)
    return paced


def finished(lives: Lives) -> Mask:
    """Whether each request has all its tokens."""
    result: Mask = lives[:, TOKENS] >= lives[:, OUTPUT]
    return result


def ttfts_s(lives: Lives) -> npt.NDArray[np.float64]:
    """Seconds from the arrival to the first token; nan without one."""
    result: npt.NDArray[np.float64] = lives[:, FIRST] - lives[:, ARRIVES]
    return result


def tpots_s(lives: Lives) -> npt.NDArray[np.float64]:
    """Mean time per token after the first; nan for fewer than two."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_s = (lives[:, LAST] - lives[:, FIRST]) / (lives[:, TOKENS] - 1)
    return np.where(lives[:, TOKENS] > 1, mean_s, np.nan)


def worst_pace_share(lives: Lives) -> npt.NDArray[np.float64]:
    """The greatest ratio of a stage's TPOT to its target; 0 without a second token."""
    early = np.minimum(lives[:, TOKENS], lives[:, CHANGES_AT]) - 1
    late = lives[:, TOKENS] - lives[:, CHANGES_AT]
    ends_s = np.where(late > 0, lives[:, CHANGED], lives[:, LAST])
    with np.errstate(invalid="ignore", divide="ignore"):
        first = (ends_s - lives[:, FIRST]) / (early * lives[:, PACE])
        second = (lives[:, LAST] - lives[:, CHANGED]) / (late * lives[:, LATER_PACE])
    result: npt.NDArray[np.float64] = np.maximum(
        np.where(early > 0, first, 0.0), np.where(late > 0, second, 0.0)
    )
    return result


def causes(lives: Lives) -> dict[Cause, int]:
    """Missed requests by main cause."""
    found = dict.fromkeys(Cause, 0)
    for life in lives[~kept(lives, Rule.ASKED)]:
        found[_cause(life)] += 1
    return {cause: count for cause, count in found.items() if count}


_OF_ADMISSION = {
    UNDECIDED: Cause.HELD,
    BEST_EFFORT: Cause.BEST_EFFORT,
    REFUSED: Cause.REFUSED,
    NEVER_CAME: Cause.NEVER_CAME,
}


def _cause(life: npt.NDArray[np.float64]) -> Cause:
    if cause := _OF_ADMISSION.get(int(life[ADMISSION])):
        return cause
    if not life[TOKENS] >= life[OUTPUT]:
        return Cause.UNFINISHED
    if life[FIRST] - life[ARRIVES] <= life[TTFT] + _ROUNDING_S:
        starved = life[MOVED] > (life[LAST] - life[FIRST]) / 2
        return Cause.TRANSFER if starved else Cause.DECODE
    waits = {
        Cause.HELD: life[PLACED] - life[ARRIVES],
        Cause.QUEUE: life[STARTED] - life[PLACED],
        Cause.PREFILL: life[FIRST] - life[STARTED],
    }
    return max(waits, key=lambda cause: waits[cause])


def _quantiles(values: Iterable[float] | npt.NDArray[np.float64]) -> tuple[float, float]:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return math.nan, math.nan
    p50, p99 = np.quantile(known, (0.5, 0.99))
    return float(p50), float(p99)


def attained(shares: Sequence[Share], rule: Rule = Rule.MEAN) -> float:
    """The attainment of all requests together."""
    return shares[0].attained(rule)
