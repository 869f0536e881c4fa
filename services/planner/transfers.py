"""How KV transfers between pairs of engines have gone lately, beside what was expected. Bounded."""

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from services.planner.bounded import remember
from shared.requests import Explanation, Outcome

_KEPT_PAIRS = 65_536
_LEAST_SHARE = 0.1  # of what the numbers say; no transfer is taken to be quicker
_MOST_WEIGHT = 9.0  # of what was seen before, beside one new transfer
_HALF_LIFE_S = 60.0
_Pair = tuple[str, str]


@dataclass(slots=True)
class _Fading:
    """A running mean that goes back to nothing unless it is seen again. A pair that looks bad gets
    no transfers that could tell otherwise, and the first one of all has connections to make.
    """

    _mean: float = 0.0
    _weight: float = 0.0
    _at_s: float = 0.0

    def value(self, now: float) -> float:
        """As if one more had been nothing."""
        weight = self._weight_at(now)
        return self._mean * weight / (weight + 1)

    def learn(self, value: float, now: float) -> None:
        weight = self._weight_at(now)
        self._mean += (value - self._mean) / (weight + 1)
        self._weight, self._at_s = min(_MOST_WEIGHT, weight + 1), now

    def _weight_at(self, now: float) -> float:
        return self._weight * math.exp2((self._at_s - now) / _HALF_LIFE_S)


_UNSEEN = _Fading()


@dataclass(slots=True)
class Transfers:
    """By the names of the engine that computed the prompt and the one that goes on.

    Delays are what transfers take beyond what the numbers say, on average. Most of that has nothing
    to do with size: the engine that takes over has a step to end before it looks.
    """

    _recomputed: OrderedDict[_Pair, _Fading] = field(default_factory=OrderedDict)
    _delays: OrderedDict[_Pair, _Fading] = field(default_factory=OrderedDict)

    def recomputed_share(self, prefill: str, decode: str, now: float) -> float:
        """How often the KV did not arrive, 0 to 1."""
        return self._recomputed.get((prefill, decode), _UNSEEN).value(now)

    def likely_s(self, prefill: str, decode: str, numbers_s: float, now: float) -> float:
        """What a transfer that should take `numbers_s` is likely to take."""
        delay_s = self._delays.get((prefill, decode), _UNSEEN).value(now)
        return max(_LEAST_SHARE * numbers_s, numbers_s + delay_s)

    def learn(
        self, explanation: Explanation, outcome: Outcome, numbers_s: float, now: float
    ) -> None:
        """Of a request that had all its tokens, whose transfer should have taken `numbers_s`; a
        co-located one teaches nothing. What is measured ends with the decode engine's first step,
        which is taken off.
        """
        prefill, decode = explanation.placement.prefill, explanation.placement.decode
        if prefill is None or decode is None:
            return
        pair = (prefill.name, decode.name)
        _learn(self._recomputed, pair, float(outcome.recomputed), now)
        if outcome.transfer_s is None or outcome.recomputed:
            return
        beyond_s = outcome.transfer_s - _step_s(outcome.transfer_s, outcome) - numbers_s
        _learn(self._delays, pair, beyond_s, now)


def _learn(store: OrderedDict[_Pair, _Fading], pair: _Pair, value: float, now: float) -> None:
    known = store.get(pair) or _Fading()
    known.learn(value, now)
    remember(store, pair, known, _KEPT_PAIRS)


def _step_s(transfer_s: float, outcome: Outcome) -> float:
    """What a step of the decode engine took, by the tokens that came after its first."""
    later = outcome.output_tokens - 2
    if outcome.tpot_s is None or later < 1:
        return 0.0
    took_s = outcome.tpot_s * (later + 1) - transfer_s
    return min(transfer_s, max(0.0, took_s / later))
