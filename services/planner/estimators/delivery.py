"""What a first token needs beside its engine's own time: a message that tells the engine of its
request, and those that bring the token to the client. Learned from how requests went. Pure.
"""

from dataclasses import dataclass

from shared.requests import Outcome

_FRESH = 0.05  # weight of the newest request in a running mean
_LEAST_BACK_S, _MOST_S = 0.003, 1.0
_MOST_SHARE = 0.5  # of a target
# The way there is what the quickest tenth of the requests wait for their first step, and at first
# what gateway and engine on one machine need. Each request moves it by so much of itself.
_THERE_S, _LEAST_THERE_S, _MOST_THERE_S = 0.002, 0.0005, 0.1
_QUICKEST, _MOVES = 0.1, 0.1


@dataclass(slots=True)
class Delivery:
    """The ways there and back, over the whole fleet."""

    _mean_s: float = 0.0  # of the way back
    _swing_s: float = 0.0
    _there_s: float = _THERE_S

    @property
    def there_s(self) -> float:
        """The way to the engine: a step that begins sooner does not hold the request."""
        return self._there_s

    @property
    def back_s(self) -> float:
        """The way from the engine to the client, which it will hardly exceed."""
        return min(_MOST_S, max(_LEAST_BACK_S, self._mean_s + self._swing_s))

    @property
    def both_s(self) -> float:
        return self.there_s + self.back_s

    def before(self, ttft_s: float) -> float:
        """How much earlier than by its target an engine should give a first token."""
        return min(self.back_s, _MOST_SHARE * ttft_s)

    def learn(self, outcome: Outcome) -> None:
        """Of a request whose times are all known: what is in none of its parts is its way back."""
        held_s, queue_s, prefill_s = outcome.held_s, outcome.queue_s, outcome.prefill_s
        if outcome.ttft_s is None or held_s is None or queue_s is None or prefill_s is None:
            return
        way_s = min(_MOST_S, max(0.0, outcome.ttft_s - held_s - queue_s - prefill_s))
        self._swing_s += _FRESH * (abs(way_s - self._mean_s) - self._swing_s)
        self._mean_s += _FRESH * (way_s - self._mean_s)
        later = _QUICKEST if queue_s > self._there_s else _QUICKEST - 1.0
        there_s = self._there_s * (1.0 + _MOVES * later)
        self._there_s = min(_MOST_THERE_S, max(_LEAST_THERE_S, there_s))
