"""How KV transfers between pairs of engines have gone lately, beside what was expected. Bounded."""

from collections import OrderedDict
from dataclasses import dataclass, field

from services.planner.bounded import remember
from shared.requests import Explanation, Outcome

_KEPT_PAIRS = 65_536
_FRESH = 0.1  # weight of the newest value in a running mean
_LEAST_SHARE = 0.1  # of what the numbers say; no transfer is taken to be quicker
_Pair = tuple[str, str]


@dataclass(slots=True)
class Transfers:
    """By the names of the engine that computed the prompt and the one that goes on.

    Delays are what transfers take beyond what the numbers say, on average. Most of that has nothing
    to do with size: the engine that takes over has a step to end before it looks.
    """

    _recomputed: OrderedDict[_Pair, float] = field(default_factory=OrderedDict)
    _delays: OrderedDict[_Pair, float] = field(default_factory=OrderedDict)

    def recomputed_share(self, prefill: str, decode: str) -> float:
        """How often the KV did not arrive, 0 to 1."""
        return self._recomputed.get((prefill, decode), 0.0)

    def likely_s(self, prefill: str, decode: str, numbers_s: float) -> float:
        """What a transfer that should take `numbers_s` is likely to take."""
        delay_s = self._delays.get((prefill, decode), 0.0)
        return max(_LEAST_SHARE * numbers_s, numbers_s + delay_s)

    def learn(self, explanation: Explanation, outcome: Outcome, numbers_s: float) -> None:
        """Of a request that had all its tokens, whose transfer should have taken `numbers_s`; a
        co-located one teaches nothing. What is measured ends with the decode engine's first step,
        which is taken off.
        """
        prefill, decode = explanation.placement.prefill, explanation.placement.decode
        if prefill is None or decode is None:
            return
        pair = (prefill.name, decode.name)
        share = self._recomputed.get(pair, 0.0)
        share += _FRESH * (float(outcome.recomputed) - share)
        remember(self._recomputed, pair, share, _KEPT_PAIRS)
        if outcome.transfer_s is None or outcome.recomputed:
            return
        beyond_s = outcome.transfer_s - _step_s(outcome.transfer_s, outcome) - numbers_s
        before_s = self._delays.get(pair, beyond_s)
        remember(self._delays, pair, before_s + _FRESH * (beyond_s - before_s), _KEPT_PAIRS)


def _step_s(transfer_s: float, outcome: Outcome) -> float:
    """What a step of the decode engine took, by the tokens that came after its first."""
    later = outcome.output_tokens - 2
    if outcome.tpot_s is None or later < 1:
        return 0.0
    took_s = outcome.tpot_s * (later + 1) - transfer_s
    return min(transfer_s, max(0.0, took_s / later))
