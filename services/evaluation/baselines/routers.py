"""Routers of baselines: to the least loaded engine, or the prompt to a prefill engine and the rest
to a decode engine. They know the engines' reports and what they sent, and defer nothing.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from shared.compiled import compiled
from shared.engines import Role
from shared.scheduling.rows import COMPUTED, NO_SLO, RESIDENT, TOTAL, Rows
from shared.scheduling.shares import ONE
from shared.simulation.engine import SimEngine
from shared.simulation.system import Route, SimRequest

Engines = Mapping[str, SimEngine]
_REQUEST_TOKENS = 128.0  # prompt tokens that weigh as much as one more request on an engine
_ON_ITS_WAY_S = 0.1  # after this an engine shows what was sent to it, or is done with it


class Router(Protocol):
    """Routes the requests of one run."""

    def route(self, request: SimRequest, engines: Engines, now: float) -> Route | None:
        """Chooses the engines of a request; None where no engine can give it tokens."""

    def ended(self, index: int) -> None:
        """Called when a request has all its tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    at_s: float
    engine: str
    tokens: int


@dataclass(slots=True)
class Traffic:
    """What is on its way to engines or on them, by what the router itself sent."""

    _decodes_on: dict[int, tuple[str, int]] = field(default_factory=dict)  # with tokens, by index
    _requests: Counter[str] = field(default_factory=Counter)
    _kv_tokens: Counter[str] = field(default_factory=Counter)
    _under_way: dict[int, _Sent] = field(default_factory=dict)

    def sent(self, request: SimRequest, prefill: str, decode: str, tokens: int, now: float) -> None:
        """Notes a request; `prefill` computes `tokens` of its prompt."""
        self.ended(request.index)
        self._decodes_on[request.index] = decode, request.prompt_tokens
        self._requests[decode] += 1
        self._kv_tokens[decode] += request.prompt_tokens
        self._under_way[request.index] = _Sent(at_s=now, engine=prefill, tokens=tokens)

    def ended(self, index: int) -> None:
        """Forgets a request."""
        self._under_way.pop(index, None)
        if (sent := self._decodes_on.pop(index, None)) is not None:
            engine, tokens = sent
            self._requests[engine] -= 1
            self._kv_tokens[engine] -= tokens

    def requests(self, engine: SimEngine) -> int:
        """The requests that get their tokens from this engine, now or once their prompt is computed
        elsewhere.
        """
        return self._requests[engine.name]

    def kv_tokens(self, engine: SimEngine) -> int:
        """The prompt tokens of these requests."""
        return self._kv_tokens[engine.name]

    def queued_tokens(self, engine: SimEngine, now: float) -> float:
        """The prompt tokens that this engine still has to compute."""
        coming = (sent.tokens for sent in self._coming(engine, now))
        return float(queued_tokens(engine.after)) + sum(coming)

    def waiting(self, engine: SimEngine, now: float) -> int:
        """The requests that wait there for their first step, or are on their way."""
        return int((engine.after[:, RESIDENT] == 0).sum()) + len(self._coming(engine, now))

    def _coming(self, engine: SimEngine, now: float) -> list[_Sent]:
        coming = []
        for index, sent in list(self._under_way.items()):
            if now - sent.at_s > _ON_ITS_WAY_S:
                del self._under_way[index]
            elif sent.engine == engine.name and not (engine.indexes == index).any():
                coming.append(sent)
        return coming


@dataclass(slots=True)
class LeastLoaded:
    """Sends all of a request to the engine with the least load: prompt tokens to compute, including
    the uncached ones of this request, and requests (as the KV routers of Dynamo and llm-d weigh
    overlap, queue and load). `keys`: the KEY of rows by class, 0 for others. `by_deadlines`: tokens
    are due relative to the arrival, not to the first token.
    """

    keys: Mapping[str, int] = field(default_factory=dict)
    by_deadlines: bool = False
    _traffic: Traffic = field(default_factory=Traffic)

    def route(self, request: SimRequest, engines: Engines, now: float) -> Route | None:
        name = least_loaded(request, engines, self._traffic, now)
        if name is None:
            return None
        self._traffic.sent(request, name, name, uncached(request, engines[name]), now)
        key = self.keys.get(request.call.class_name, 0)
        return Route(decode=name, kind=NO_SLO, key=key, by_deadlines=self.by_deadlines)

    def ended(self, index: int) -> None:
        self._traffic.ended(index)


@dataclass(slots=True)
class Split:
    """Sends prompts with at least `threshold_tokens` not cached on the chosen decode engine to the
    prefill engine with the fewest tokens queued; shorter ones stay.
    """

    threshold_tokens: int = 0
    _traffic: Traffic = field(default_factory=Traffic)

    def route(self, request: SimRequest, engines: Engines, now: float) -> Route | None:
        decode = self._decode(request, engines, now)
        if decode is None:
            return None
        tokens = uncached(request, engines[decode])
        prefill = None
        if tokens >= self.threshold_tokens:
            prefill = _least(
                (self._traffic.queued_tokens(engine, now), engine.name)
                for engine in of_role(engines, Role.PREFILL)
            )
        self._traffic.sent(request, prefill or decode, decode, tokens, now)
        return Route(decode=decode, prefill=prefill, kind=NO_SLO)

    def _decode(self, request: SimRequest, engines: Engines, now: float) -> str | None:
        """The decode engine; without a threshold its load is its number of requests alone."""
        if self.threshold_tokens:
            return least_loaded(request, engines, self._traffic, now)
        return _least(
            (self._traffic.requests(engine), engine.name)
            for engine in of_role(engines, Role.DECODE)
        )

    def ended(self, index: int) -> None:
        self._traffic.ended(index)


def of_role(engines: Engines, role: Role) -> list[SimEngine]:
    return [engine for engine in engines.values() if engine.role is role]


def uncached(request: SimRequest, engine: SimEngine) -> int:
    """Tokens of the prompt that this engine would have to compute."""
    call = request.call
    kept = engine.cache.tokens(call.prefix_group or request.program_id) if call.prefix_tokens else 0
    return request.prompt_tokens - min(call.prefix_tokens, kept)


def least_loaded(request: SimRequest, engines: Engines, traffic: Traffic, now: float) -> str | None:
    """The name of the least loaded decode engine."""
    return _least(
        (
            traffic.queued_tokens(engine, now)
            + uncached(request, engine)
            + _REQUEST_TOKENS * traffic.requests(engine),
            engine.name,
        )
        for engine in of_role(engines, Role.DECODE)
    )


def _least(costs: Iterable[tuple[float, str]]) -> str | None:
    return min(costs, default=(math.inf, None))[1]


@compiled
def queued_tokens(rows: Rows) -> float:
    """Prompt tokens that are not computed yet."""
    queued = 0.0
    for i in range(len(rows)):
        rest = rows[i, TOTAL] - rows[i, COMPUTED]
        if rest > ONE:
            queued += rest
    return queued
