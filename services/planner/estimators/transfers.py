"""Learns KV transfer times and losses by pair of engines and transport. Bounded."""

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeVar

from services.planner.estimators.fading import KEPT, UNSEEN, Fading, learn
from services.planner.estimators.kv_speed import Factors, Line, Speed
from services.planner.tuning import LEAST_TRANSFER_SHARE
from shared.bounded import remember
from shared.engines import KvTransfer
from shared.requests import Explanation, Outcome

_KEPT_REPORTED = 8192  # transfers that were reported before the outcome of their request
_Pair = tuple[str, str]
_K = TypeVar("_K")
_AS_TOLD = Factors()


_NO_SPEED = Speed()


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What is known of a pair of engines at one time.

    Attributes:
        line: The seconds that KV moves.
        delay_s: What requests wait beyond that, on average.
        recomputed_share: The share of transfers, 0 to 1, after which KV was computed again.
    """

    line: Line
    delay_s: float
    recomputed_share: float

    def likely_s(self, moved_bytes: float) -> float:
        """Expected seconds of a transfer of so many bytes."""
        moving_s = self.line.seconds(moved_bytes)
        return max(LEAST_TRANSFER_SHARE * moving_s, moving_s + self.delay_s)


@dataclass(slots=True)
class Transfers:
    """Transfers by the names of the prefill and the decode engine.

    Reported transfers give the speed of a pair over a transport. A pair without any takes the speed
    of that transport between other pairs, and without these `told`. Delays are what requests waited
    beyond that, as gateways measured: a decode engine ends its step before it looks for KV. Where
    engines report no transfers, delays include everything beyond `told`.
    """

    told: Line = field(default_factory=lambda: Line(fixed_s=0.0))
    _recomputed: OrderedDict[_Pair, Fading] = field(default_factory=OrderedDict)
    _delays: OrderedDict[_Pair, Fading] = field(default_factory=OrderedDict)
    _speeds: OrderedDict[tuple[str, str, str], Speed] = field(default_factory=OrderedDict)
    _of_transport: OrderedDict[str, Speed] = field(default_factory=OrderedDict)
    _last_used: OrderedDict[_Pair, str] = field(default_factory=OrderedDict)
    _reported: OrderedDict[str, KvTransfer] = field(default_factory=OrderedDict)
    # Links as of one time, until something is learned: a round asks for few, once per request.
    _links: dict[tuple[str, str, tuple[str, ...]], Link] = field(default_factory=dict)
    _links_at_s: float = math.nan

    def link(self, prefill: str, decode: str, now: float, transports: tuple[str, ...] = ()) -> Link:
        """The pair as of `now`; both engines have `transports`."""
        if now != self._links_at_s:
            self._links.clear()
            self._links_at_s = now
        known = self._links.get((prefill, decode, transports))
        if known is None:
            known = self._links[prefill, decode, transports] = Link(
                line=self._line(prefill, decode, now, transports),
                delay_s=self._delays.get((prefill, decode), UNSEEN).value(now),
                recomputed_share=self.recomputed_share(prefill, decode, now),
            )
        return known

    def recomputed_share(self, prefill: str, decode: str, now: float) -> float:
        """The share of transfers, 0 to 1, after which the KV was computed again."""
        return self._recomputed.get((prefill, decode), UNSEEN).value(now)

    def report(self, prefill: str, decode: str, transfer: KvTransfer, now: float) -> None:
        """Learns from a transfer that `decode` reports; `prefill` "": an unknown engine."""
        self._links.clear()
        remember(self._reported, transfer.request_id, transfer, _KEPT_REPORTED)
        if prefill:
            learn(self._recomputed, (prefill, decode), float(not transfer.used), now)
        if not transfer.used:
            return
        if prefill:
            remember(self._last_used, (prefill, decode), transfer.transport, KEPT)
            key = (prefill, decode, transfer.transport)
            _measure(self._speeds, key, self.told, transfer, now)
        _measure(self._of_transport, transfer.transport, self.told, transfer, now)

    def learn(
        self, explanation: Explanation, outcome: Outcome, moved_bytes: float, now: float
    ) -> None:
        """Learns from a completed request with `moved_bytes` of KV. Its gateway measured up to the
        end of the decode engine's first step, which is subtracted.
        """
        prefill, decode = explanation.placement.prefill, explanation.placement.decode
        if prefill is None or decode is None:
            return
        self._links.clear()
        pair = (prefill.name, decode.name)
        reported = self._reported.pop(outcome.request_id, None)
        if reported is None:
            learn(self._recomputed, pair, float(outcome.recomputed), now)
        if outcome.transfer_s is None or outcome.recomputed:
            return
        moving_s = reported.seconds if reported else self._line(*pair, now, ()).seconds(moved_bytes)
        beyond_s = outcome.transfer_s - _step_s(outcome.transfer_s, outcome) - moving_s
        learn(self._delays, pair, beyond_s, now)

    def _line(self, prefill: str, decode: str, now: float, transports: tuple[str, ...]) -> Line:
        """The time over the transport that the pair used last, else the first that both have."""
        transport = self._last_used.get((prefill, decode), "")
        if transports and transport not in transports:
            transport = transports[0]
        others = self._of_transport.get(transport, _NO_SPEED).factors(_AS_TOLD, now)
        own = self._speeds.get((prefill, decode, transport), _NO_SPEED).factors(others, now)
        return self.told.scaled(own)


def _measure(
    store: OrderedDict[_K, Speed], key: _K, told: Line, transfer: KvTransfer, now: float
) -> None:
    known = store.get(key) or Speed()
    known.learn(told, transfer.bytes, transfer.seconds, now)
    remember(store, key, known, KEPT)


def _step_s(transfer_s: float, outcome: Outcome) -> float:
    """Seconds of a step of the decode engine, by the tokens after its first."""
    later = outcome.output_tokens - 2
    if outcome.tpot_s is None or later < 1:
        return 0.0
    took_s = outcome.tpot_s * (later + 1) - transfer_s
    return min(transfer_s, max(0.0, took_s / later))
