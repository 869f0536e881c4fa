"""Learns the latency of a first token beside its engine's own time: of the request on its way to
the engine, and of the token on its way to the client.
"""

from dataclasses import dataclass

from services.planner.tuning import FRESH_DELIVERY, MOST_DELIVERY, QUANTILE_STEP, QUICKEST
from shared.requests import Outcome

_LEAST_BACK_S, _MOST_S = 0.003, 1.0
# The first estimate of the way to the engine holds for a gateway on the same machine.
_THERE_S, _LEAST_THERE_S, _MOST_THERE_S = 0.002, 0.0005, 0.1


@dataclass(slots=True)
class ClientLatency:
    """The latency to engines (a low quantile) and back (EWMA of mean and deviation), fleet-wide."""

    _mean_s: float = 0.0  # of the way back
    _swing_s: float = 0.0  # its mean absolute deviation
    _there_s: float = _THERE_S

    @property
    def there_s(self) -> float:
        """Seconds to the engine: a step that begins sooner cannot include the request."""
        return self._there_s

    @property
    def back_s(self) -> float:
        """A bound of the seconds from the engine to the client: mean plus deviation."""
        return min(_MOST_S, max(_LEAST_BACK_S, self._mean_s + self._swing_s))

    @property
    def both_s(self) -> float:
        return self.there_s + self.back_s

    def before(self, ttft_s: float) -> float:
        """Seconds by which an engine should give a first token before its target."""
        return min(self.back_s, MOST_DELIVERY * ttft_s)

    def learn(self, outcome: Outcome) -> None:
        """Learns from a request with all parts measured; the rest of its TTFT is the way back."""
        held_s, queue_s, prefill_s = outcome.held_s, outcome.queue_s, outcome.prefill_s
        if outcome.ttft_s is None or held_s is None or queue_s is None or prefill_s is None:
            return
        way_s = min(_MOST_S, max(0.0, outcome.ttft_s - held_s - queue_s - prefill_s))
        self._swing_s += FRESH_DELIVERY * (abs(way_s - self._mean_s) - self._swing_s)
        self._mean_s += FRESH_DELIVERY * (way_s - self._mean_s)
        later = QUICKEST if queue_s > self._there_s else QUICKEST - 1.0
        there_s = self._there_s * (1.0 + QUANTILE_STEP * later)
        self._there_s = min(_MOST_THERE_S, max(_LEAST_THERE_S, there_s))
