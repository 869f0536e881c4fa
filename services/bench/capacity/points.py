"""The result of one system at one rate: counts, intervals and times by class."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.bench.capacity.judge import Ended, Judged
from services.bench.spread import Spread, percentile

_Z = 1.96  # normal quantile for 95 %


def interval(hits: int, count: int) -> tuple[float, float]:
    """The Wilson score interval of a share, at 95 %."""
    if count == 0:
        return 0.0, 1.0
    share, spread = hits / count, _Z * _Z / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """All requests of one system at one rate of one load.

    Arrivals lasted `seconds`. `busy_cores` were busy just before, with no request in flight: the
    use of other processes.
    """

    load: str
    system: str
    rate_rps: float
    seconds: float
    busy_cores: float = 0.0
    judged: Sequence[Judged]

    @property
    def attainment(self) -> float:
        return _share(one.is_met for one in self.judged)

    def attainment_of(self, class_name: str) -> float | None:
        """The attainment of one class; None without requests of it."""
        judged = self.by_class.get(class_name)
        return None if judged is None else _share(one.is_met for one in judged)

    @property
    def interval(self) -> tuple[float, float]:
        return interval(sum(one.is_met for one in self.judged), len(self.judged))

    @property
    def by_class(self) -> Mapping[str, Sequence[Judged]]:
        found: dict[str, list[Judged]] = {}
        for one in self.judged:
            found.setdefault(one.seen.offered.class_name, []).append(one)
        return dict(sorted(found.items()))

    def line(self) -> str:
        """A line of progress."""
        low, high = self.interval
        return (
            f"{self.load}, {self.system}: {self.rate_rps:.2f}/s, {len(self.judged)} requests, "
            f"{self.attainment:.0%} attained ({low:.0%} to {high:.0%}), "
            f"{self.busy_cores:.1f} cores busy before"
        )

    def as_json(self) -> dict[str, Any]:
        late_s = [one.seen.sent_late_s for one in self.judged]
        return {
            "load": self.load,
            "system": self.system,
            "rate_rps": round(self.rate_rps, 4),
            "seconds": round(self.seconds, 2),
            **_counts(self.judged),
            "busy_cores_before": round(self.busy_cores, 2),
            "sent_late_p99_ms": round(1000 * percentile(late_s, 99), 2),
            "classes": {
                name: {**_counts(judged), **times(judged)} for name, judged in self.by_class.items()
            },
            "failures": sorted({one.seen.message for one in self.judged if one.seen.message})[:3],
        }


def _share(hits: Iterable[bool]) -> float:
    found = list(hits)
    return sum(found) / len(found)


def _counts(judged: Sequence[Judged]) -> dict[str, Any]:
    seen = [one.seen for one in judged]
    met = sum(one.is_met for one in judged)
    low, high = interval(met, len(judged))
    return {
        "requests": len(judged),
        "attained": round(met / len(judged), 4),
        "attained_95": [round(low, 4), round(high, 4)],
        "attained_at_every_token": round(_share(one.is_met_at_every_token for one in judged), 4),
        "refused": sum(one.ended is Ended.REFUSED for one in seen),
        "best_effort": sum(one.was_best_effort for one in seen),
        "cut": sum(one.ended is Ended.CUT for one in seen),
        "failed": sum(one.ended is Ended.FAILED for one in seen),
        "not_promised": dict(Counter(one.reason for one in seen if one.was_not_promised)),
    }


def times(judged: Sequence[Judged]) -> dict[str, Any]:
    """Times of the admitted requests, in seconds and as shares of their targets.

    A request that was cut counts with the time that it had taken by then.
    """
    admitted = [one for one in judged if one.seen.was_admitted]
    ttft = [(one.seen.ttft_s, one.ttft_target_s) for one in admitted]
    tpot = [(one.seen.tpot_s, one.tpot_target_s) for one in admitted]
    return {"ttft": _beside_targets(ttft), "tpot": _beside_targets(tpot)}


def _beside_targets(pairs: Sequence[tuple[float | None, float]]) -> dict[str, float] | None:
    known = [(time_s, target_s) for time_s, target_s in pairs if time_s is not None]
    if not known:
        return None
    shares = [time_s / target_s for time_s, target_s in known]
    return {
        **Spread.of([time_s for time_s, _ in known]).as_json(),
        "target_p50_ms": round(1000 * percentile([target_s for _, target_s in known], 50), 1),
        "of_target_p50": round(percentile(shares, 50), 3),
        "of_target_p99": round(percentile(shares, 99), 3),
    }
