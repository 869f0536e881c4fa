"""Compares the running system with its calibrated simulation on the same requests."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from services.bench.capacity.judge import Judged
from services.bench.spread import percentile
from shared.simulation.judge import Rule, finished, kept, tpots_s, ttfts_s
from shared.simulation.record import Record
from shared.simulation.request_metrics import ADMISSION, ADMITTED, LAST, SECOND, TOKENS

ATTAINED_WITHIN: Final = 0.05  # of all requests
TIMES_WITHIN: Final = 0.15  # of the measured time
TIMES: Final = ("ttft_p50", "ttft_p99", "tpot_p50", "tpot_p99")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one request. Times are nan if it was not admitted, did not end or has none.

    `later_s` is the mean time of a token after the second, which excludes KV transfer.
    """

    met: bool
    ttft_s: float = math.nan
    tpot_s: float = math.nan
    later_s: float = math.nan


def seen(judged: Sequence[Judged]) -> list[Outcome]:
    """The outcomes at the clients of the running system, in the order of sending."""
    return [
        Outcome(
            met=one.is_met,
            ttft_s=_known(one.seen.ttft_s) if one.is_promise_answered else math.nan,
            tpot_s=_known(one.seen.tpot_s) if one.is_promise_answered else math.nan,
            later_s=_later_s(one.seen.token_times_s) if one.is_promise_answered else math.nan,
        )
        for one in judged
    ]


def simulated(record: Record) -> list[Outcome]:
    """The outcomes of a simulation, in the order of arrival."""
    metrics = record.metrics
    counts = finished(metrics) & (metrics[:, ADMISSION] == ADMITTED)
    with np.errstate(invalid="ignore", divide="ignore"):  # nan for answers of two tokens
        laters_s = (metrics[:, LAST] - metrics[:, SECOND]) / (metrics[:, TOKENS] - 2)
    times_s = zip(ttfts_s(metrics), tpots_s(metrics), laters_s, strict=True)
    return [
        Outcome(
            met=bool(met),
            ttft_s=float(ttft_s) if done else math.nan,
            tpot_s=float(tpot_s) if done else math.nan,
            later_s=float(later_s) if done else math.nan,
        )
        for met, done, (ttft_s, tpot_s, later_s) in zip(
            kept(metrics, Rule.MEAN), counts, times_s, strict=True
        )
    ]


def _later_s(token_times_s: Sequence[float]) -> float:
    later = len(token_times_s) - 2
    return (token_times_s[-1] - token_times_s[1]) / later if later > 0 else math.nan


def _known(time_s: float | None) -> float:
    return math.nan if time_s is None else time_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """All requests of one side; times in seconds, nan if there are none."""

    attained: float
    times_s: dict[str, float]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "Side":
        ttfts_s = [one.ttft_s for one in outcomes]
        tpots_s = [one.tpot_s for one in outcomes]
        return cls(
            attained=sum(one.met for one in outcomes) / len(outcomes),
            times_s={
                "ttft_p50": _percentile(ttfts_s, 50),
                "ttft_p99": _percentile(ttfts_s, 99),
                "tpot_p50": _percentile(tpots_s, 50),
                "tpot_p99": _percentile(tpots_s, 99),
            },
        )

    def as_json(self) -> dict[str, float | None]:
        shown = {
            f"{name}_ms": None if math.isnan(time_s) else round(1000 * time_s, 2)
            for name, time_s in self.times_s.items()
        }
        return {"attained": round(self.attained, 4), **shown}


def _percentile(times_s: Iterable[float], percent: float) -> float:
    known = [time_s for time_s in times_s if not math.isnan(time_s)]
    return percentile(known, percent) if known else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One system at one rate.

    Attributes:
        others_cores: Cores that other processes used meanwhile.
        slower: Factor of the simulated step times over the profile.
        simulated: All simulations together.
        runs: The simulations one by one; they differ by the noise of their steps alone.
    """

    system: str
    rate_rps: float
    requests: int
    others_cores: float
    slower: float
    real: Side
    simulated: Side
    runs: Sequence[Side]

    @property
    def attained_off(self) -> float:
        """Simulated less measured attainment."""
        return self.simulated.attained - self.real.attained

    @property
    def times_off(self) -> dict[str, float]:
        """Simulated over measured, less 1."""
        simulated_s, real_s = self.simulated.times_s, self.real.times_s
        return {
            name: simulated_s[name] / real_s[name] - 1 if self.has(name) else 0.0 for name in TIMES
        }

    @property
    def by_chance(self) -> dict[str, tuple[float, float]]:
        """The least and the greatest of the runs over all of them, less 1: the effect of noise."""
        return {
            name: _ends(run.times_s[name] / self.simulated.times_s[name] - 1 for run in self.runs)
            for name in TIMES
        }

    def has(self, name: str) -> bool:
        """Whether both sides have this time."""
        return not math.isnan(self.real.times_s[name] + self.simulated.times_s[name])

    @property
    def is_true(self) -> bool:
        near = abs(self.attained_off) <= ATTAINED_WITHIN and all(map(self.has, TIMES))
        return near and all(abs(off) <= TIMES_WITHIN for off in self.times_off.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "system": self.system,
            "rate_rps": round(self.rate_rps, 4),
            "requests": self.requests,
            "others_cores": round(self.others_cores, 2),
            "slower": round(self.slower, 3),
            "real": self.real.as_json(),
            "simulated": self.simulated.as_json(),
            "attained_off": round(self.attained_off, 4),
            "times_off": {name: round(off, 4) for name, off in self.times_off.items()},
            "by_chance": {
                name: [round(off, 4) for off in offs] for name, offs in self.by_chance.items()
            },
            "true": self.is_true,
        }


def _ends(offs: Iterable[float]) -> tuple[float, float]:
    """The least and the greatest known value; 0 and 0 if none is known."""
    known = [off for off in offs if not math.isnan(off)]
    return (min(known), max(known)) if known else (0.0, 0.0)
