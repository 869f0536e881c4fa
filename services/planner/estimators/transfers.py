"""How KV transfers between pairs of engines have gone lately, over which transport. Bounded."""

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeVar

from services.planner.estimators.kv_speed import Factors, Line, Speed
from services.planner.tuning import LEAST_TRANSFER_SHARE, TRANSFER_HALF_LIFE_S, TRANSFER_WEIGHT
from shared.bounded import remember
from shared.engines import KvTransfer
from shared.requests import Explanation, Outcome

_KEPT_PAIRS = 65_536
_KEPT_REPORTED = 8192  # transfers that were reported before the outcome of their request
_Pair = tuple[str, str]
_K = TypeVar("_K")
_AS_TOLD = Factors()


@dataclass(slots=True)
class _Fading:
    """A running mean that goes back to nothing unless it is seen again. A pair that looks bad gets
    no transfers that could tell otherwise, and the first one of all has connections to make.
    """

    _mean: float = 0.0
    _weight: float = 0.0
    _at_s: float = 0.0

    def value(self, now: float) -> float:
        """Shrunk toward zero with a prior of weight 1."""
        weight = self._weight_at(now)
        return self._mean * weight / (weight + 1)

    def learn(self, value: float, now: float) -> None:
        weight = self._weight_at(now)
        self._mean += (value - self._mean) / (weight + 1)
        self._weight, self._at_s = min(TRANSFER_WEIGHT, weight + 1), now

    def _weight_at(self, now: float) -> float:
        return self._weight * math.exp2((self._at_s - now) / TRANSFER_HALF_LIFE_S)


_UNSEEN = _Fading()
_NO_SPEED = Speed()


@dataclass(slots=True)
class Transfers:
    """By the names of the engine that computed the prompt and the one that goes on.

    What engines report of each transfer gives the speed of the pair over that transport; a pair
    that was not seen on a transport takes what was seen of the transport between others, and
    before that `told`. Delays are what a request waits beyond that, from gateways: the engine that
    takes over has a step to end before it looks. Where engines report no transfers, delays hold
    all that is beyond `told`.
    """

    told: Line = field(default_factory=lambda: Line(fixed_s=0.0))
    _recomputed: OrderedDict[_Pair, _Fading] = field(default_factory=OrderedDict)
    _delays: OrderedDict[_Pair, _Fading] = field(default_factory=OrderedDict)
    _speeds: OrderedDict[tuple[str, str, str], Speed] = field(default_factory=OrderedDict)
    _of_transport: OrderedDict[str, Speed] = field(default_factory=OrderedDict)
    _last_used: OrderedDict[_Pair, str] = field(default_factory=OrderedDict)
    _reported: OrderedDict[str, KvTransfer] = field(default_factory=OrderedDict)

    def recomputed_share(self, prefill: str, decode: str, now: float) -> float:
        """How often the KV did not arrive, 0 to 1."""
        return self._recomputed.get((prefill, decode), _UNSEEN).value(now)

    def likely_s(
        self,
        prefill: str,
        decode: str,
        moved_bytes: float,
        now: float,
        transports: tuple[str, ...] = (),
    ) -> float:
        """What a transfer of so many bytes is likely to take; both engines have `transports`."""
        moving_s = self._moving_s(prefill, decode, moved_bytes, now, transports)
        delay_s = self._delays.get((prefill, decode), _UNSEEN).value(now)
        return max(LEAST_TRANSFER_SHARE * moving_s, moving_s + delay_s)

    def report(self, prefill: str, decode: str, transfer: KvTransfer, now: float) -> None:
        """The engine `decode` tells of a transfer from `prefill` ("": it is not known)."""
        remember(self._reported, transfer.request_id, transfer, _KEPT_REPORTED)
        if prefill:
            _learn(self._recomputed, (prefill, decode), float(not transfer.used), now)
        if not transfer.used:
            return
        if prefill:
            remember(self._last_used, (prefill, decode), transfer.transport, _KEPT_PAIRS)
            key = (prefill, decode, transfer.transport)
            _measure(self._speeds, key, self.told, transfer, now)
        _measure(self._of_transport, transfer.transport, self.told, transfer, now)

    def learn(
        self, explanation: Explanation, outcome: Outcome, moved_bytes: float, now: float
    ) -> None:
        """Learns from a request that had all its tokens and whose KV weighed `moved_bytes`. Its
        gateway measured up to the end of the decode engine's first step, which is taken off.
        """
        prefill, decode = explanation.placement.prefill, explanation.placement.decode
        if prefill is None or decode is None:
            return
        pair = (prefill.name, decode.name)
        reported = self._reported.pop(outcome.request_id, None)
        if reported is None:
            _learn(self._recomputed, pair, float(outcome.recomputed), now)
        if outcome.transfer_s is None or outcome.recomputed:
            return
        moving_s = reported.seconds if reported else self._moving_s(*pair, moved_bytes, now, ())
        beyond_s = outcome.transfer_s - _step_s(outcome.transfer_s, outcome) - moving_s
        _learn(self._delays, pair, beyond_s, now)

    def _moving_s(
        self,
        prefill: str,
        decode: str,
        moved_bytes: float,
        now: float,
        transports: tuple[str, ...],
    ) -> float:
        """Over the transport that the pair used last, or else over the first that both have."""
        transport = self._last_used.get((prefill, decode), "")
        if transports and transport not in transports:
            transport = transports[0]
        others = self._of_transport.get(transport, _NO_SPEED).factors(_AS_TOLD, now)
        own = self._speeds.get((prefill, decode, transport), _NO_SPEED).factors(others, now)
        return self.told.scaled(own).seconds(moved_bytes)


def _learn(store: OrderedDict[_Pair, _Fading], pair: _Pair, value: float, now: float) -> None:
    known = store.get(pair) or _Fading()
    known.learn(value, now)
    remember(store, pair, known, _KEPT_PAIRS)


def _measure(
    store: OrderedDict[_K, Speed], key: _K, told: Line, transfer: KvTransfer, now: float
) -> None:
    known = store.get(key) or Speed()
    known.learn(told, transfer.bytes, transfer.seconds, now)
    remember(store, key, known, _KEPT_PAIRS)


def _step_s(transfer_s: float, outcome: Outcome) -> float:
    """What a step of the decode engine took, by the tokens that came after its first."""
    later = outcome.output_tokens - 2
    if outcome.tpot_s is None or later < 1:
        return 0.0
    took_s = outcome.tpot_s * (later + 1) - transfer_s
    return min(transfer_s, max(0.0, took_s / later))
