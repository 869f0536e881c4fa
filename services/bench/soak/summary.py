"""Summarizes a soak test.

It has attainment by placement mode and class, prediction errors, and causes of misses.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.bench.capacity.judge import Ended
from services.bench.capacity.points import interval
from services.bench.soak.causes import (
    Cause,
    Miss,
    Part,
    miss_of,
    pace_parts,
    start_parts,
    was_promised,
)
from services.bench.soak.records import RecordedRequest, SoakResult
from services.bench.spread import percentile
from shared.requests import Admission, StepSums

NOWHERE: Final = "not placed"
WORST_SHOWN: Final = 10

# Predicted, real and target seconds; None if one of them is missing.
Times = Callable[[RecordedRequest], tuple[float, float, float] | None]
Parts = Callable[[RecordedRequest], Sequence[Part] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Real less predicted times of promised requests, in seconds and as shares of their targets."""

    errors_s: Sequence[float]
    shares: Sequence[float]

    def as_json(self) -> dict[str, Any] | None:
        if not self.errors_s:
            return None
        return {
            "requests": len(self.errors_s),
            "error_p50_ms": round(1000 * percentile(self.errors_s, 50), 1),
            "error_p95_ms": round(1000 * percentile(self.errors_s, 95), 1),
            "of_target_p50": round(percentile(self.shares, 50), 3),
            "of_target_p95": round(percentile(self.shares, 95), 3),
        }


def start_times(request: RecordedRequest) -> tuple[float, float, float] | None:
    """TTFT: predicted at the gateway, real at the client, and target."""
    predicted_s = request.record.placement.predicted_ttft_s if request.record else None
    real_s = request.judged.seen.ttft_s
    if predicted_s is None or real_s is None:
        return None
    return predicted_s, real_s, request.judged.ttft_target_s


def pace_times(request: RecordedRequest) -> tuple[float, float, float] | None:
    predicted_s = request.record.placement.predicted_tpot_s if request.record else None
    real_s = request.judged.seen.tpot_s
    if predicted_s is None or real_s is None:
        return None
    return predicted_s, real_s, request.judged.tpot_target_s


def beside(requests: Sequence[RecordedRequest], times: Times) -> Beside:
    """Errors of the admitted requests that ended."""
    known = [times(one) for one in requests if was_promised(one) and _ended(one)]
    triples = [one for one in known if one is not None]
    return Beside(
        errors_s=[real_s - predicted_s for predicted_s, real_s, _ in triples],
        shares=[(real_s - predicted_s) / target_s for predicted_s, real_s, target_s in triples],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Requests of one placement mode or of one class."""

    name: str
    requests: Sequence[RecordedRequest]

    def as_json(self) -> dict[str, Any]:
        """Counts and errors. A request without a decision (planner away) counts as lost."""
        attained = sum(one.judged.is_met for one in self.requests)
        low, high = interval(attained, len(self.requests))
        return {
            "requests": len(self.requests),
            "admitted": sum(was_promised(one) for one in self.requests),
            "refused": sum(one.judged.seen.ended is Ended.REFUSED for one in self.requests),
            "best_effort": sum(_is_best_effort(one) for one in self.requests),
            "lost": sum(not _ended(one) for one in self.requests),
            "attained": attained,
            "attained_share": round(attained / len(self.requests), 4),
            "attained_95": [round(low, 4), round(high, 4)],
            "broken": sum(miss_of(one) is not None for one in self.requests),
            "ttft": beside(self.requests, start_times).as_json(),
            "tpot": beside(self.requests, pace_times).as_json(),
            "beyond": {
                "ttft": beyond_json(self.requests, start_parts),
                "tpot": beyond_json(self.requests, pace_parts),
            },
        }


def by_way(soak: SoakResult) -> list[Group]:
    return _groups(soak, _way)


def by_class(soak: SoakResult) -> list[Group]:
    return _groups(soak, lambda one: one.judged.seen.offered.class_name)


def beyond_json(requests: Sequence[RecordedRequest], parts_of: Parts) -> dict[str, Any]:
    """Excess of each cause over its prediction, of all admitted requests, kept or broken."""
    excess: dict[Cause, list[float]] = {}
    for one in requests:
        for part in (parts_of(one) or ()) if was_promised(one) else ():
            excess.setdefault(part.cause, []).append(part.excess_s)
    return {
        cause: {"p50_ms": _ms(percentile(found, 50)), "p95_ms": _ms(percentile(found, 95))}
        for cause, found in excess.items()
    }


def misses(soak: SoakResult) -> list[Miss]:
    """Broken promises, the worst first."""
    found = [miss for miss in map(miss_of, soak.requests) if miss is not None]
    return sorted(found, key=lambda miss: -miss.late_by)


def causes_json(found: Sequence[Miss]) -> dict[str, Any]:
    """By cause: broken promises by placement mode and by target, and excess times."""
    counted: dict[str, Any] = {}
    for cause in Cause:
        own = [miss for miss in found if miss.cause is cause]
        if not own:
            continue
        taken_s = [miss.excess_s.get(cause, 0.0) for miss in own]
        counted[cause] = {
            "misses": len(own),
            "ways": dict(Counter(_way(miss.request) for miss in own)),
            "ttft": sum(miss.missed_ttft for miss in own),
            "tpot": sum(miss.missed_tpot for miss in own),
            "excess_p50_ms": round(1000 * percentile(taken_s, 50), 1),
            "excess_most_ms": round(1000 * max(taken_s), 1),
        }
    return counted


def miss_json(miss: Miss) -> dict[str, Any]:
    """One broken promise with its numbers."""
    judged, record = miss.request.judged, miss.request.record
    seen, placement = judged.seen, record.placement if record else None
    return {
        "decision_id": placement.decision_id if placement else "",
        "class": seen.offered.class_name,
        "way": _way(miss.request),
        "cause": miss.cause,
        "late_by": round(miss.late_by, 3),
        "ttft_ms": _ms(seen.ttft_s),
        "ttft_predicted_ms": _ms(placement.predicted_ttft_s if placement else None),
        "ttft_target_ms": _ms(judged.ttft_target_s),
        "tpot_ms": _ms(seen.tpot_s),
        "tpot_predicted_ms": _ms(placement.predicted_tpot_s if placement else None),
        "tpot_target_ms": _ms(judged.tpot_target_s),
        "excess_ms": {cause: _ms(excess_s) for cause, excess_s in miss.excess_s.items()},
    }


def steps_json(soak: SoakResult) -> dict[str, Any]:
    """By engine: the ratio of real to expected step time, and the share of steps beyond `sure_s`.

    A step counts once for each request that waited for it.
    """
    sums: dict[str, list[StepSums]] = {}
    for one in soak.requests:
        for each in (one.record.before_first, one.record.after_first) if one.record else ():
            if each is not None:
                sums.setdefault(each.engine, []).append(each)
    return {
        engine: {
            "real_to_expected": round(_total(own, "real_s") / _total(own, "expected_s"), 3),
            "beyond_sure_share": round(_total(own, "beyond_sure") / _total(own, "steps"), 4),
            "worst_excess_ms": _ms(max(each.worst_excess_s for each in own)),
        }
        for engine, own in sorted(sums.items())
    }


def summary_json(soak: SoakResult) -> dict[str, Any]:
    found = misses(soak)
    return {
        "requests": len(soak.requests),
        "decisions_of_other_requests": soak.others,
        "all": Group(name="all", requests=soak.requests).as_json() if soak.requests else {},
        "ways": {group.name: group.as_json() for group in by_way(soak)},
        "classes": {group.name: group.as_json() for group in by_class(soak)},
        "not_promised": _reasons(soak),
        "causes": causes_json(found),
        "steps": steps_json(soak),
        "misses": [miss_json(miss) for miss in found],
    }


def _reasons(soak: SoakResult) -> dict[str, int]:
    """Requests without a promise, by reason."""
    return dict(Counter(_reason(one) for one in soak.requests if not was_promised(one)))


def _reason(request: RecordedRequest) -> str:
    """The reason in the record; without a record, the one in the answer."""
    return request.record.placement.reason.value if request.record else request.judged.seen.reason


def _groups(soak: SoakResult, key: Callable[[RecordedRequest], str]) -> list[Group]:
    found: dict[str, list[RecordedRequest]] = {}
    for one in soak.requests:
        found.setdefault(key(one), []).append(one)
    return [Group(name=name, requests=found[name]) for name in sorted(found)]


def _way(request: RecordedRequest) -> str:
    placement = request.record.placement if request.record else None
    return placement.way.value if placement and placement.runs else NOWHERE


def _is_best_effort(request: RecordedRequest) -> bool:
    if request.record is None:
        return request.judged.seen.was_best_effort
    return request.record.placement.admission is Admission.BEST_EFFORT


def _ended(request: RecordedRequest) -> bool:
    """Whether it has an outcome, or was refused and needs none."""
    if request.record is None:
        return False
    return (
        request.record.outcome is not None
        or request.record.placement.admission is Admission.REFUSED
    )


def _total(sums: Sequence[StepSums], name: str) -> float:
    return float(sum(getattr(one, name) for one in sums)) or 1.0


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)
