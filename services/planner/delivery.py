"""What a first token needs beside its engine's own time: messages from client to planner to engine
and back, learned from how requests went. Pure.
"""

from dataclasses import dataclass

from shared.requests import Outcome

_FRESH = 0.05  # weight of the newest request in a running mean
_LEAST_S, _MOST_S = 0.005, 1.0
_MOST_SHARE = 0.5  # of a target


@dataclass(slots=True)
class Delivery:
    """The mean over the fleet, and how far from it on average."""

    _mean_s: float = 0.0
    _swing_s: float = 0.0

    @property
    def likely_s(self) -> float:
        """What it will hardly exceed."""
        return min(_MOST_S, max(_LEAST_S, self._mean_s + self._swing_s))

    def before(self, ttft_s: float) -> float:
        """How much earlier than by its target an engine should give a first token."""
        return min(self.likely_s, _MOST_SHARE * ttft_s)

    def learn(self, outcome: Outcome) -> None:
        """Of a request whose times are all known, what is in none of its parts."""
        parts_s = outcome.held_s, outcome.queue_s, outcome.prefill_s
        known_s = [one for one in parts_s if one is not None]
        if outcome.ttft_s is None or len(known_s) < len(parts_s):
            return
        way_s = min(_MOST_S, max(0.0, outcome.ttft_s - sum(known_s)))
        self._swing_s += _FRESH * (abs(way_s - self._mean_s) - self._swing_s)
        self._mean_s += _FRESH * (way_s - self._mean_s)
