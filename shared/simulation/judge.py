"""Sums over a record: requests that kept their targets, by each rule, and times by class."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from shared.simulation.record import Record
from shared.simulation.request_metrics import (
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
    RequestMetrics,
)

Mask = npt.NDArray[np.bool_]
_ROUNDING_S = 1e-6


class Rule(StrEnum):
    """The rule by which a request has kept its targets.

    MEAN: TTFT, and the mean TPOT of each stage. WINDOWS: TTFT, and every ten tokens within ten TPOT
    targets (SLOs-Serve, section 8). DEADLINES: token n by the arrival plus TTFT plus n - 1 TPOT
    targets; without a TTFT target as MEAN. ASKED: MEAN or DEADLINES, as the request asked.
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
    shares = [share_of("all", record.metrics)]
    if len(set(names)) < 2:
        return shares
    return shares + [share_of(one, record.metrics[classes == one]) for one in sorted(set(names))]


def share_of(name: str, metrics: RequestMetrics) -> Share:
    """Sums over these requests."""
    admission = metrics[:, ADMISSION]
    promised = metrics[admission == ADMITTED]
    first_s, pace_s = ttfts_s(promised), tpots_s(promised)
    return Share(
        name=name,
        requests=len(metrics),
        admitted=len(promised),
        best_effort=int((admission == BEST_EFFORT).sum()),
        refused=int((admission == REFUSED).sum()),
        promises_kept=int(kept(promised, Rule.ASKED).sum()),
        kept={rule: int(kept(metrics, rule).sum()) for rule in Rule},
        causes=causes(metrics),
        ttft_s=_quantiles(first_s),
        tpot_s=_quantiles(pace_s),
        ttft_share=_quantiles(first_s / promised[:, TTFT])[1],
        tpot_share=_quantiles(worst_pace_share(promised))[1],
    )


def kept(metrics: RequestMetrics, rule: Rule) -> Mask:
    """Whether each request ran, finished and was in time, promised or not."""
    if rule is Rule.ASKED:
        by_deadlines = metrics[:, BY_DEADLINES] > 0
        return np.where(by_deadlines, kept(metrics, Rule.DEADLINES), kept(metrics, Rule.MEAN))
    served = (metrics[:, ADMISSION] == ADMITTED) | (metrics[:, ADMISSION] == BEST_EFFORT)
    done = served & finished(metrics)
    if rule is Rule.DEADLINES:
        in_time: Mask = done & (metrics[:, WORST_LATE] <= _ROUNDING_S)
        return np.where(np.isinf(metrics[:, TTFT]), kept(metrics, Rule.MEAN), in_time)
    started: Mask = done & (ttfts_s(metrics) <= metrics[:, TTFT] + _ROUNDING_S)
    if rule is Rule.WINDOWS:
        held: Mask = started & (metrics[:, SLOW_WINDOWS] == 0)
        return held
    paced: Mask = started & (worst_pace_share(metrics) <= 1 + _ROUNDING_S)
    return paced


def finished(metrics: RequestMetrics) -> Mask:
    """Whether each request has all its tokens."""
    result: Mask = metrics[:, TOKENS] >= metrics[:, OUTPUT]
    return result


def ttfts_s(metrics: RequestMetrics) -> npt.NDArray[np.float64]:
    """Seconds from the arrival to the first token; nan without one."""
    result: npt.NDArray[np.float64] = metrics[:, FIRST] - metrics[:, ARRIVES]
    return result


def tpots_s(metrics: RequestMetrics) -> npt.NDArray[np.float64]:
    """Mean time per token after the first; nan for fewer than two."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_s = (metrics[:, LAST] - metrics[:, FIRST]) / (metrics[:, TOKENS] - 1)
    return np.where(metrics[:, TOKENS] > 1, mean_s, np.nan)


def worst_pace_share(metrics: RequestMetrics) -> npt.NDArray[np.float64]:
    """The greatest ratio of a stage's TPOT to its target; 0 without a second token."""
    early = np.minimum(metrics[:, TOKENS], metrics[:, CHANGES_AT]) - 1
    late = metrics[:, TOKENS] - metrics[:, CHANGES_AT]
    ends_s = np.where(late > 0, metrics[:, CHANGED], metrics[:, LAST])
    with np.errstate(invalid="ignore", divide="ignore"):
        first = (ends_s - metrics[:, FIRST]) / (early * metrics[:, PACE])
        second = (metrics[:, LAST] - metrics[:, CHANGED]) / (late * metrics[:, LATER_PACE])
    result: npt.NDArray[np.float64] = np.maximum(
        np.where(early > 0, first, 0.0), np.where(late > 0, second, 0.0)
    )
    return result


def causes(metrics: RequestMetrics) -> dict[Cause, int]:
    """Missed requests by main cause."""
    found = dict.fromkeys(Cause, 0)
    for request in metrics[~kept(metrics, Rule.ASKED)]:
        found[_cause(request)] += 1
    return {cause: count for cause, count in found.items() if count}


_OF_ADMISSION = {
    UNDECIDED: Cause.HELD,
    BEST_EFFORT: Cause.BEST_EFFORT,
    REFUSED: Cause.REFUSED,
    NEVER_CAME: Cause.NEVER_CAME,
}


def _cause(request: npt.NDArray[np.float64]) -> Cause:
    if cause := _OF_ADMISSION.get(int(request[ADMISSION])):
        return cause
    if not request[TOKENS] >= request[OUTPUT]:
        return Cause.UNFINISHED
    if request[FIRST] - request[ARRIVES] <= request[TTFT] + _ROUNDING_S:
        starved = request[MOVED] > (request[LAST] - request[FIRST]) / 2
        return Cause.TRANSFER if starved else Cause.DECODE
    waits = {
        Cause.HELD: request[PLACED] - request[ARRIVES],
        Cause.QUEUE: request[STARTED] - request[PLACED],
        Cause.PREFILL: request[FIRST] - request[STARTED],
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
