"""Which engines may take a request, in which way, and why the others may not. No times here."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from services.planner.engine_state import EngineState
from services.planner.state import ClusterState
from shared.engines import Role
from shared.requests import PlacementQuery, Way, WayConsidered

_REJECTIONS_KEPT = 16
_MOST_OF_SIDE = 16
_LIKE_A_DECODE = 256.0  # prompt tokens that are as much to do as a request that decodes


@dataclass(slots=True)
class Ways:
    """Co-located on one of `colocated`; disaggregated over one of `prefills` and of `decodes`."""

    colocated: list[EngineState] = field(default_factory=list)
    prefills: list[EngineState] = field(default_factory=list)
    decodes: list[EngineState] = field(default_factory=list)
    rejected: list[WayConsidered] = field(default_factory=list)

    @property
    def pairs_exist(self) -> bool:
        return any(p is not d for p in self.prefills[:2] for d in self.decodes[:2])

    @property
    def exist(self) -> bool:
        return bool(self.colocated) or self.pairs_exist

    def reject(self, way: Way, why: str, engine: EngineState | None = None) -> None:
        if len(self.rejected) < _REJECTIONS_KEPT:
            name = engine.name if engine else None
            self.rejected.append(WayConsidered(way=way, decode=name, rejected=why))


class Loads:
    """How much engines have promised to do, counted once for a round of decisions."""

    def __init__(self) -> None:
        self._by_load: dict[tuple[str, ...], list[EngineState]] = {}

    def least_of(self, ways: Ways, *, home: str) -> Ways:
        """The ways over the engines of each side that have the least to do, and over `home`: the
        others of a large fleet would cost more time than they could gain.
        """
        return replace(
            ways,
            colocated=self._least(ways.colocated, home),
            prefills=self._least(ways.prefills, home),
            decodes=self._least(ways.decodes, home),
        )

    def _least(self, engines: list[EngineState], home: str) -> list[EngineState]:
        if len(engines) <= _MOST_OF_SIDE:
            return engines
        names = tuple(engine.name for engine in engines)
        if names not in self._by_load:
            self._by_load[names] = sorted(engines, key=_load)
        by_load = self._by_load[names]
        first = [engine for engine in engines if engine.name == home]
        others = [engine for engine in by_load[:_MOST_OF_SIDE] if engine.name != home]
        return [*first, *others][:_MOST_OF_SIDE]


def _load(engine: EngineState) -> float:
    promised = engine.promised
    return promised.requests + promised.prompt_tokens / _LIKE_A_DECODE


def open_ways(query: PlacementQuery, state: ClusterState, now: float) -> Ways:
    """All that are possible. A role is a preference: where one is missing, others stand in."""
    ways = Ways()
    serving = list(_serving(state, ways))
    fitting = list(_fitting(query, serving, ways))
    exchanging = [engine for engine in fitting if engine.description.kv_address]
    ways.colocated = _preferred(fitting, Role.DECODE)
    ways.decodes = _preferred(exchanging, Role.DECODE)
    ways.prefills = _preferred(
        [e for e in serving if e.description.kv_address and holds_prompt(e, query)], Role.PREFILL
    )
    _obey_caller(query, ways)
    _keep_group_together(state.group_engines(query.group_id, now), ways)
    return ways


def too_small(engine: EngineState, query: PlacementQuery) -> str:
    """Why the request could never run on it; empty when it could."""
    needed = query.prompt_tokens + query.max_output_tokens
    limit = engine.description.max_model_len_tokens
    if needed > limit:
        return f"{engine.name} takes at most {limit} tokens, this request may need {needed}"
    capacity = engine.description.kv_capacity_tokens
    if needed > capacity:
        return f"the KV cache of {engine.name} holds {capacity} tokens, {needed} may be needed"
    return ""


def holds_prompt(engine: EngineState, query: PlacementQuery) -> bool:
    """Whether it can compute the prompt and its first token."""
    limit = min(engine.description.max_model_len_tokens, engine.description.kv_capacity_tokens)
    return query.prompt_tokens < limit


def _serving(state: ClusterState, ways: Ways) -> Iterable[EngineState]:
    for engine in state.engines.values():
        if engine.draining:
            ways.reject(Way.COLOCATED, f"{engine.name} is draining", engine)
        else:
            yield engine


def _fitting(
    query: PlacementQuery, engines: Iterable[EngineState], ways: Ways
) -> Iterable[EngineState]:
    for engine in engines:
        why = too_small(engine, query)
        if why:
            ways.reject(Way.COLOCATED, why, engine)
        else:
            yield engine


def _preferred(engines: list[EngineState], role: Role) -> list[EngineState]:
    return [engine for engine in engines if engine.description.role is role] or engines


def _keep_group_together(group: tuple[EngineState | None, EngineState] | None, ways: Ways) -> None:
    """Its prefix is cached there."""
    if group is None:
        return
    prefill, decode = group
    if prefill is None and decode in ways.colocated:
        ways.colocated = [decode]
        ways.prefills, ways.decodes = [], []
        ways.reject(Way.DISAGGREGATED, f"the prompt's prefix is cached on {decode.name}")
    elif prefill in ways.prefills and decode in ways.decodes:
        assert prefill is not None
        ways.prefills, ways.decodes = [prefill], [decode]
        ways.colocated = []
        ways.reject(Way.COLOCATED, f"the prompt's prefix is cached on {prefill.name}")


def _obey_caller(query: PlacementQuery, ways: Ways) -> None:
    if query.whole_on_one_engine:
        ways.prefills, ways.decodes = [], []
        ways.reject(Way.DISAGGREGATED, "splitting this request would change its result")
    elif query.forced_way is Way.COLOCATED:
        ways.prefills, ways.decodes = [], []
        ways.reject(Way.DISAGGREGATED, "the caller asked for colocated")
    elif query.forced_way is Way.DISAGGREGATED:
        ways.colocated = []
        ways.reject(Way.COLOCATED, "the caller asked for disaggregated")
