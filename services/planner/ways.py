"""Which engines may take a request, in which way, and why the others may not. No times here."""

from dataclasses import dataclass, field, replace

from services.planner.engine_state import EngineState
from services.planner.state import ClusterState
from shared.engines import Role
from shared.requests import PlacementQuery, Way, WayConsidered

_REJECTIONS_KEPT = 16
_MOST_OF_SIDE = 8
_LIKE_A_DECODE = 256.0  # prompt tokens that are as much to do as a request that decodes


@dataclass(slots=True)
class Ways:
    """Co-located on one of `colocated`; disaggregated over one of `prefills` and of `decodes`. Many
    requests share these lists. `starts` and `ends` have one engine of each make that could compute
    the prompt, or the answer.
    """

    colocated: list[EngineState] = field(default_factory=list)
    prefills: list[EngineState] = field(default_factory=list)
    decodes: list[EngineState] = field(default_factory=list)
    rejected: list[WayConsidered] = field(default_factory=list)
    starts: list[EngineState] = field(default_factory=list)
    ends: list[EngineState] = field(default_factory=list)

    def count_makes(self) -> None:
        self.starts = _one_of_each_make(self.colocated, self.prefills)
        self.ends = _one_of_each_make(self.colocated, self.decodes)

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


class Fleet:
    """The engines as one round of decisions finds them: who serves, and how much each has promised
    to do; both are found out once. A role is a preference: where one is missing, others stand in.
    """

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._draining = [engine for engine in state.engines.values() if engine.draining]
        self._serving = list(state.serving())
        self._least_tokens = min((_most_tokens(engine) for engine in self._serving), default=0)
        self._whole = _ways(self._serving, self._serving)
        self._by_load: dict[int, tuple[list[EngineState], list[EngineState]]] = {}

    def open_ways(self, query: PlacementQuery, now: float) -> Ways:
        """All that are possible."""
        if _held_by_all(query, self._least_tokens):  # so it is for most
            ways = replace(self._whole, rejected=[])
            self._reject_draining(ways)
        else:
            ways = self._fitting(query)
        if _obey_caller(query, ways) | self._keep_group_together(query, ways, now):
            ways.count_makes()
        return ways

    def least_of(self, ways: Ways, *, home: str) -> Ways:
        """The ways over the engines of each side that have the least to do, and over `home`: the
        others of a large fleet would cost more time than they could gain. Nor does KV move there
        between engines that all decode: that comes last, after so many that one of them is taken.
        """
        decodes = self._least(ways.decodes, home)
        stand_in = any(engine.description.role is Role.DECODE for engine in ways.prefills[:1])
        if stand_in and len(ways.colocated) > _MOST_OF_SIDE:
            decodes = []
        return replace(
            ways,
            colocated=self._least(ways.colocated, home),
            prefills=self._least(ways.prefills, home) if decodes else [],
            decodes=decodes,
        )

    def _least(self, engines: list[EngineState], home: str) -> list[EngineState]:
        if len(engines) <= _MOST_OF_SIDE:
            return engines
        known = self._by_load.get(id(engines))
        if known is None:  # kept with the list itself, whose id is nobody else's for as long
            known = self._by_load[id(engines)] = engines, sorted(engines, key=_load)
        first = [engine for engine in engines if engine.name == home] if home else []
        others = [engine for engine in known[1][:_MOST_OF_SIDE] if engine.name != home]
        return [*first, *others][:_MOST_OF_SIDE]

    def _reject_draining(self, ways: Ways) -> None:
        for engine in self._draining:
            ways.reject(Way.COLOCATED, f"{engine.name} is draining", engine)

    def _fitting(self, query: PlacementQuery) -> Ways:
        """Where not every engine holds every request."""
        why = {engine: too_small(engine, query) for engine in self._serving}
        ways = _ways(
            [engine for engine in self._serving if not why[engine]],
            [engine for engine in self._serving if holds_prompt(engine, query)],
        )
        self._reject_draining(ways)
        for engine in self._serving:
            if why[engine]:
                ways.reject(Way.COLOCATED, why[engine], engine)
        return ways

    def _keep_group_together(self, query: PlacementQuery, ways: Ways, now: float) -> bool:
        """Its prefix is cached there. Whether that leaves fewer ways."""
        group = self._state.group_engines(query.group_id, now)
        if group is None:
            return False
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
        else:
            return False
        return True


def _load(engine: EngineState) -> float:
    promised = engine.promised
    return promised.requests + promised.prompt_tokens / _LIKE_A_DECODE


def open_ways(query: PlacementQuery, state: ClusterState, now: float) -> Ways:
    """All that are possible, for one that is decided alone."""
    return Fleet(state).open_ways(query, now)


def _held_by_all(query: PlacementQuery, least_tokens: int) -> bool:
    needed = query.prompt_tokens + query.max_output_tokens
    return needed <= least_tokens and query.prompt_tokens < least_tokens


def _ways(whole: list[EngineState], prompts: list[EngineState]) -> Ways:
    """Over engines that hold all of a request, and over those that hold its prompt."""
    exchanging = [engine for engine in whole if engine.description.kv_address]
    computing = [engine for engine in prompts if engine.description.kv_address]
    ways = Ways(
        colocated=_preferred(whole, Role.DECODE),
        decodes=_preferred(exchanging, Role.DECODE),
        prefills=_preferred(computing, Role.PREFILL),
    )
    ways.count_makes()
    return ways


def _most_tokens(engine: EngineState) -> int:
    """Of prompt and answer together."""
    description = engine.description
    return min(description.max_model_len_tokens, description.kv_capacity_tokens)


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
    return query.prompt_tokens < _most_tokens(engine)


def _preferred(engines: list[EngineState], role: Role) -> list[EngineState]:
    return [engine for engine in engines if engine.description.role is role] or engines


def _obey_caller(query: PlacementQuery, ways: Ways) -> bool:
    """Whether what was asked for leaves fewer ways."""
    if query.whole_on_one_engine:
        ways.prefills, ways.decodes = [], []
        ways.reject(Way.DISAGGREGATED, "splitting this request would change its result")
    elif query.forced_way is Way.COLOCATED:
        ways.prefills, ways.decodes = [], []
        ways.reject(Way.DISAGGREGATED, "the caller asked for colocated")
    elif query.forced_way is Way.DISAGGREGATED:
        ways.colocated = []
        ways.reject(Way.COLOCATED, "the caller asked for disaggregated")
    else:
        return False
    return True


def _one_of_each_make(*sides: list[EngineState]) -> list[EngineState]:
    return list({engine.make: engine for side in sides for engine in side}.values())
