"""How KV transfers between pairs of engines have gone lately, beside what was expected. Bounded."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeVar

from shared.requests import Explanation, Outcome

_KEPT_PAIRS = 65_536
_FRESH = 0.1  # weight of the newest value in a running mean
_LEAST_SHARE = 0.1  # of what the numbers say; no transfer is taken to be quicker
_Pair = tuple[str, str]
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delay:
    """Seconds beyond what the numbers say: the mean, and how far from it on average. Most of it has
    nothing to do with size: the engine that takes over has a step to end before it looks.
    """

    mean_s: float
    swing_s: float

    def with_next(self, seconds: float) -> "_Delay":
        apart_s = abs(seconds - self.mean_s)
        return _Delay(
            mean_s=self.mean_s + _FRESH * (seconds - self.mean_s),
            swing_s=self.swing_s + _FRESH * (apart_s - self.swing_s),
        )


@dataclass(slots=True)
class Transfers:
    """By the names of the engine that computed the prompt and the one that goes on."""

    _recomputed: OrderedDict[_Pair, float] = field(default_factory=OrderedDict)
    _delays: OrderedDict[_Pair, _Delay] = field(default_factory=OrderedDict)

    def recomputed_share(self, prefill: str, decode: str) -> float:
        """How often the KV did not arrive, 0 to 1."""
        return self._recomputed.get((prefill, decode), 0.0)

    def likely_s(self, prefill: str, decode: str, numbers_s: float) -> float:
        """What a transfer that should take `numbers_s` will hardly exceed."""
        delay = self._delays.get((prefill, decode))
        if delay is None:
            return numbers_s
        return max(_LEAST_SHARE * numbers_s, numbers_s + delay.mean_s + delay.swing_s)

    def learn(self, explanation: Explanation, outcome: Outcome, numbers_s: float) -> None:
        """Of a request that had all its tokens, whose transfer should have taken `numbers_s`; a
        co-located one teaches nothing. What is measured ends with the decode engine's first step.
        """
        prefill, decode = explanation.placement.prefill, explanation.placement.decode
        if prefill is None or decode is None:
            return
        pair = (prefill.name, decode.name)
        share = self._recomputed.get(pair, 0.0)
        share += _FRESH * (float(outcome.recomputed) - share)
        _remember(self._recomputed, pair, share)
        if outcome.transfer_s is None or outcome.recomputed:
            return
        beyond_s = outcome.transfer_s - numbers_s
        before = self._delays.get(pair) or _Delay(mean_s=beyond_s, swing_s=abs(beyond_s) / 2)
        _remember(self._delays, pair, before.with_next(beyond_s))


def _remember(store: OrderedDict[_Pair, _V], pair: _Pair, value: _V) -> None:
    store[pair] = value
    store.move_to_end(pair)
    while len(store) > _KEPT_PAIRS:
        store.popitem(last=False)
