"""How KV transfers between pairs of engines have gone lately, beside what was expected. Bounded."""

from collections import OrderedDict
from dataclasses import dataclass, field

from shared.requests import Explanation, Outcome

_KEPT_PAIRS = 65_536
_FRESH = 0.1  # weight of the newest value in a running mean
_LEAST_RATIO, _MOST_RATIO = 0.1, 20.0  # of a measured transfer and the one that was expected
_Pair = tuple[str, str]


@dataclass(slots=True)
class Transfers:
    """By the names of the engine that computed the prompt and the one that goes on."""

    _recomputed: OrderedDict[_Pair, float] = field(default_factory=OrderedDict)
    _ratio: OrderedDict[_Pair, float] = field(default_factory=OrderedDict)

    def recomputed_share(self, prefill: str, decode: str) -> float:
        """How often the KV did not arrive, 0 to 1."""
        return self._recomputed.get((prefill, decode), 0.0)

    def ratio(self, prefill: str, decode: str) -> float:
        """How long transfers took beside what the numbers say."""
        return self._ratio.get((prefill, decode), 1.0)

    def learn(self, explanation: Explanation, outcome: Outcome) -> None:
        """Of a request that had all its tokens; a co-located one teaches nothing."""
        prefill, decode = explanation.placement.prefill, explanation.placement.decode
        if prefill is None or decode is None:
            return
        pair = (prefill.name, decode.name)
        share = self._recomputed.get(pair, 0.0)
        share += _FRESH * (float(outcome.recomputed) - share)
        _remember(self._recomputed, pair, share)
        ratio = self._new_ratio(pair, explanation, outcome)
        if ratio is not None:
            _remember(self._ratio, pair, ratio)

    def _new_ratio(self, pair: _Pair, explanation: Explanation, outcome: Outcome) -> float | None:
        """What was measured holds the decode engine's first step as well."""
        expected_s = explanation.ways[0].transfer_s if explanation.ways else None
        if outcome.transfer_s is None or not expected_s or outcome.recomputed:
            return None
        before = self.ratio(*pair)
        step_s = explanation.placement.predicted_tpot_s or 0.0
        moved_s = max(0.0, outcome.transfer_s - step_s)
        ratio = before + _FRESH * (min(_MOST_RATIO, moved_s * before / expected_s) - before)
        return max(_LEAST_RATIO, ratio)


def _remember(store: OrderedDict[_Pair, float], pair: _Pair, value: float) -> None:
    store[pair] = value
    store.move_to_end(pair)
    while len(store) > _KEPT_PAIRS:
        store.popitem(last=False)
