"""Summarizes a day: attainment by placement mode and class, prediction errors, causes of misses."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.bench.capacity.judge import Ended
from services.bench.capacity.points import interval
from services.bench.day.causes import (
    Cause,
    Miss,
    Part,
    miss_of,
    pace_parts,
    start_parts,
    was_promised,
)
from services.bench.day.records import Day, Lived
from services.bench.spread import percentile
from shared.requests import Admission, StepSums

NOWHERE: Final = "not placed"
WORST_SHOWN: Final = 10

# Predicted, real and target seconds; None if one of them is missing.
Times = Callable[[Lived], tuple[float, float, float] | None]
Parts = Callable[[Lived], Sequence[Part] | None]


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


def start_times(lived: Lived) -> tuple[float, float, float] | None:
    """TTFT: predicted at the gateway, real at the client, and target."""
    predicted_s = lived.record.placement.predicted_ttft_s if lived.record else None
    real_s = lived.judged.seen.ttft_s
    if predicted_s is None or real_s is None:
        return None
    return predicted_s, real_s, lived.judged.ttft_target_s


def pace_times(lived: Lived) -> tuple[float, float, float] | None:
    predicted_s = lived.record.placement.predicted_tpot_s if lived.record else None
    real_s = lived.judged.seen.tpot_s
    if predicted_s is None or real_s is None:
        return None
    return predicted_s, real_s, lived.judged.tpot_target_s


def beside(lived: Sequence[Lived], times: Times) -> Beside:
    """Errors of the admitted requests that ended."""
    known = [times(one) for one in lived if was_promised(one) and _ended(one)]
    triples = [one for one in known if one is not None]
    return Beside(
        errors_s=[real_s - predicted_s for predicted_s, real_s, _ in triples],
        shares=[(real_s - predicted_s) / target_s for predicted_s, real_s, target_s in triples],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Requests of one placement mode or of one class."""

    name: str
    lived: Sequence[Lived]

    def as_json(self) -> dict[str, Any]:
        """Counts and errors. A request without a decision (planner away) counts as lost."""
        attained = sum(one.judged.is_met for one in self.lived)
        low, high = interval(attained, len(self.lived))
        return {
            "requests": len(self.lived),
            "admitted": sum(was_promised(one) for one in self.lived),
            "refused": sum(one.judged.seen.ended is Ended.REFUSED for one in self.lived),
            "best_effort": sum(_is_best_effort(one) for one in self.lived),
            "lost": sum(not _ended(one) for one in self.lived),
            "attained": attained,
            "attained_share": round(attained / len(self.lived), 4),
            "attained_95": [round(low, 4), round(high, 4)],
            "broken": sum(miss_of(one) is not None for one in self.lived),
            "ttft": beside(self.lived, start_times).as_json(),
            "tpot": beside(self.lived, pace_times).as_json(),
            "beyond": {
                "ttft": beyond_json(self.lived, start_parts),
                "tpot": beyond_json(self.lived, pace_parts),
            },
        }


def by_way(day: Day) -> list[Group]:
    return _groups(day, _way)


def by_class(day: Day) -> list[Group]:
    return _groups(day, lambda one: one.judged.seen.offered.class_name)


def beyond_json(lived: Sequence[Lived], parts_of: Parts) -> dict[str, Any]:
    """Excess of each cause over its prediction, of all admitted requests, kept or broken."""
    excess: dict[Cause, list[float]] = {}
    for one in lived:
        for part in (parts_of(one) or ()) if was_promised(one) else ():
            excess.setdefault(part.cause, []).append(part.excess_s)
    return {
        cause: {"p50_ms": _ms(percentile(found, 50)), "p95_ms": _ms(percentile(found, 95))}
        for cause, found in excess.items()
    }


def misses(day: Day) -> list[Miss]:
    """Broken promises, the worst first."""
    found = [miss for miss in map(miss_of, day.lived) if miss is not None]
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
            "ways": dict(Counter(_way(miss.lived) for miss in own)),
            "ttft": sum(miss.missed_ttft for miss in own),
            "tpot": sum(miss.missed_tpot for miss in own),
            "excess_p50_ms": round(1000 * percentile(taken_s, 50), 1),
            "excess_most_ms": round(1000 * max(taken_s), 1),
        }
    return counted


def miss_json(miss: Miss) -> dict[str, Any]:
    """One broken promise with its numbers."""
    judged, record = miss.lived.judged, miss.lived.record
    seen, placement = judged.seen, record.placement if record else None
    return {
        "decision_id": placement.decision_id if placement else "",
        "class": seen.offered.class_name,
        "way": _way(miss.lived),
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


def steps_json(day: Day) -> dict[str, Any]:
    """By engine: the ratio of real to expected step time, and the share of steps beyond `sure_s`.

    A step counts once for each request that waited for it.
    """
    sums: dict[str, list[StepSums]] = {}
    for one in day.lived:
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


def summary_json(day: Day) -> dict[str, Any]:
    found = misses(day)
    return {
        "requests": len(day.lived),
        "decisions_of_other_requests": day.others,
        "all": Group(name="all", lived=day.lived).as_json() if day.lived else {},
        "ways": {group.name: group.as_json() for group in by_way(day)},
        "classes": {group.name: group.as_json() for group in by_class(day)},
        "not_promised": _reasons(day),
        "causes": causes_json(found),
        "steps": steps_json(day),
        "misses": [miss_json(miss) for miss in found],
    }


def _reasons(day: Day) -> dict[str, int]:
    """Requests without a promise, by reason."""
    return dict(Counter(_reason(one) for one in day.lived if not was_promised(one)))


def _reason(lived: Lived) -> str:
    """The reason in the record; without a record, the one in the answer."""
    return lived.record.placement.reason.value if lived.record else lived.judged.seen.reason


def _groups(day: Day, key: Callable[[Lived], str]) -> list[Group]:
    found: dict[str, list[Lived]] = {}
    for one in day.lived:
        found.setdefault(key(one), []).append(one)
    return [Group(name=name, lived=found[name]) for name in sorted(found)]


def _way(lived: Lived) -> str:
    placement = lived.record.placement if lived.record else None
    return placement.way.value if placement and placement.runs else NOWHERE


def _is_best_effort(lived: Lived) -> bool:
    if lived.record is None:
        return lived.judged.seen.was_best_effort
    return lived.record.placement.admission is Admission.BEST_EFFORT


def _ended(lived: Lived) -> bool:
    """Whether it has an outcome, or was refused and needs none."""
    if lived.record is None:
        return False
    return lived.record.outcome is not None or lived.record.placement.admission is Admission.REFUSED


def _total(sums: Sequence[StepSums], name: str) -> float:
    return float(sum(getattr(one, name) for one in sums)) or 1.0


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)
