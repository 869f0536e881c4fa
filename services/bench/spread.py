"""Median and 99th percentile of repeated measurements."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Times in milliseconds; `count` of them were taken."""

    count: int
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, times_s: Sequence[float]) -> "Spread":
        """The spread of times in seconds. Raises ValueError if there are none."""
        return cls(
            count=len(times_s),
            p50_ms=1000 * percentile(times_s, 50),
            p99_ms=1000 * percentile(times_s, 99),
        )

    def as_json(self) -> dict[str, float]:
        return {"p50_ms": round(self.p50_ms, 4), "p99_ms": round(self.p99_ms, 4)}


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile, always one of the values. Raises ValueError on none."""
    if not values:
        raise ValueError("nothing was measured")
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(0, rank - 1)]
