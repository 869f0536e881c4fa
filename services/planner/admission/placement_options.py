"""Finds the engines that may take a request, in which way, and why the others may not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from services.planner.state.cluster import ClusterState
from services.planner.state.engine_state import EngineState
from services.planner.tuning import (
    MOST_CACHED,
    MOST_OF_SIDE,
    MOST_STAND_INS,
    MOST_TRIED,
    PROMPT_LIKE_A_DECODE,
)
from shared.engines import Role
from shared.requests import PlacementMode, PlacementOption, PlacementQuery

_REJECTIONS_KEPT = 16


@dataclass(slots=True)
class Ways:
    """The open ways of a request. Many requests share these lists.

    Attributes:
        colocated: Engines that may take the whole request.
        stand_ins: Prefill engines that may take the whole request beside decode engines.
        prefills, decodes: Engines of both sides of a disaggregated way.
        rejected: Ways that are not open, and why.
        starts, ends: One engine of each make that could compute the prompt, or the answer.
    """

    colocated: list[EngineState] = field(default_factory=list)
    stand_ins: list[EngineState] = field(default_factory=list)
    prefills: list[EngineState] = field(default_factory=list)
    decodes: list[EngineState] = field(default_factory=list)
    rejected: list[PlacementOption] = field(default_factory=list)
    starts: list[EngineState] = field(default_factory=list)
    ends: list[EngineState] = field(default_factory=list)

    def fill(self, whole: list[EngineState], prompts: list[EngineState]) -> None:
        """Sets the ways from engines that can hold the whole request, and its prompt."""
        exchanging = [engine for engine in whole if engine.exchanges]
        computing = [engine for engine in prompts if engine.exchanges]
        self.colocated = _preferred(whole, Role.DECODE)
        self.stand_ins = [engine for engine in whole if engine not in self.colocated]
        self.decodes = _preferred(exchanging, Role.DECODE)
        self.prefills = _preferred(computing, Role.PREFILL)

    def count_makes(self) -> None:
        self.starts = _one_of_each_make(self.colocated, self.prefills)
        self.ends = _one_of_each_make(self.colocated, self.decodes)

    def over(self, engines: Callable[[EngineState], bool]) -> "Ways":
        """The ways that use these engines alone. No way may be left."""
        return replace(
            self,
            colocated=list(filter(engines, self.colocated)),
            stand_ins=list(filter(engines, self.stand_ins)),
            prefills=list(filter(engines, self.prefills)),
            decodes=list(filter(engines, self.decodes)),
        )

    def without_answers_on(self, closed: frozenset[str]) -> "Ways":
        """The ways whose decode engine is none of these; all of them where no other is left."""
        colocated = [engine for engine in self.colocated if engine.name not in closed]
        if not colocated:
            return self
        decodes = [engine for engine in self.decodes if engine.name not in closed]
        return replace(self, colocated=colocated, decodes=decodes)

    @property
    def on_one(self) -> list[EngineState]:
        """Engines that could take the whole request."""
        return [*self.colocated, *self.stand_ins]

    @property
    def pairs_exist(self) -> bool:
        return any(p.exchanges_with(d) for p in self.prefills for d in self.decodes)

    @property
    def exist(self) -> bool:
        return bool(self.colocated) or self.pairs_exist

    def reject(self, way: PlacementMode, why: str, engine: EngineState | None = None) -> None:
        if len(self.rejected) < _REJECTIONS_KEPT:
            name = engine.name if engine else None
            self.rejected.append(PlacementOption(way=way, decode=name, rejected=why))


class Fleet:
    """The serving engines and their load, read once per round. A role is a preference: where one is
    missing, engines of the other role stand in.
    """

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._serving = list(state.serving())
        self._least_tokens = min((_most_tokens(engine) for engine in self._serving), default=0)
        self._whole = Ways()
        self._whole.fill(self._serving, self._serving)
        self._whole.count_makes()
        for engine in state.engines.values():
            if not engine.serves:
                self._whole.reject(
                    PlacementMode.COLOCATED, f"{engine.name} {engine.why_not}", engine
                )
        self._by_load: dict[int, tuple[list[EngineState], list[EngineState]]] = {}

    def open_ways(self, query: PlacementQuery, now: float) -> Ways:
        """All possible ways; engines in `query.avoid` count only where there is no other."""
        ways = replace(self._whole, rejected=[*self._whole.rejected])
        serving = [one for one in self._serving if one.description.engine_id not in query.avoid]
        fewer = self._leave_out_unfit(query, ways, serving)
        fewer |= _obey_caller(query, ways)
        fewer |= self._keep_group_together(query, ways, now)
        if query.avoid and not ways.exist:
            return self.open_ways(replace(query, avoid=()), now)
        if fewer:
            ways.count_makes()
        return ways

    def least_of(self, ways: Ways, cached_tokens: Mapping[str, int]) -> Ways:
        """The ways over the least loaded engines of each side and those with the most of the prompt
        cached: trying more would cost more time than it gains. Between decode engines KV moves only
        where there are fewer than MOST_TRIED of them, since these ways come last.
        """
        prefills, decodes = ways.prefills, ways.decodes
        stand_in = bool(prefills) and prefills[0].description.role is Role.DECODE
        if stand_in and len(ways.colocated) >= MOST_TRIED:
            prefills, decodes = [], []
        return replace(
            ways,
            colocated=self._least(ways.colocated, cached_tokens),
            stand_ins=self._least(ways.stand_ins, cached_tokens, MOST_STAND_INS),
            prefills=self._least(prefills, cached_tokens),
            decodes=self._least(decodes, cached_tokens),
        )

    def _least(
        self,
        engines: list[EngineState],
        cached_tokens: Mapping[str, int],
        most: int = MOST_OF_SIDE,
    ) -> list[EngineState]:
        if len(engines) <= most:
            return engines
        known = self._by_load.get(id(engines))
        if known is None:  # kept with the list, so that its id stays unique
            known = self._by_load[id(engines)] = engines, sorted(engines, key=_load)
        by_load = known[1]
        if not cached_tokens:
            return by_load[:most]
        having = [engine for engine in by_load if engine.name in cached_tokens]
        having.sort(key=lambda engine: -cached_tokens[engine.name])
        first = having[:MOST_CACHED]
        others = [engine for engine in by_load[:most] if engine not in first]
        return [*first, *others][:most]

    def _leave_out_unfit(
        self, query: PlacementQuery, ways: Ways, serving: list[EngineState]
    ) -> bool:
        """Rejects engines that could never run the request or are to be avoided; whether there are
        any.
        """
        needed = query.prompt_tokens + query.max_output_tokens
        fits = needed <= self._least_tokens and query.prompt_tokens < self._least_tokens
        if fits and len(serving) == len(self._serving) and not query.adapter:
            return False
        why = {engine: why_unfit(engine, query) for engine in serving}
        ways.fill(
            [engine for engine in serving if not why[engine]],
            [engine for engine in serving if takes_prompt(engine, query)],
        )
        for engine in self._serving:
            if said := why.get(engine, f"{engine.name} failed a gateway of late"):
                ways.reject(PlacementMode.COLOCATED, said, engine)
        return True

    def _keep_group_together(self, query: PlacementQuery, ways: Ways, now: float) -> bool:
        """Keeps to the engines of the request's group, where its prefix is cached; whether that
        leaves fewer ways.
        """
        group = self._state.group_engines(query.group_id, now)
        if group is None:
            return False
        prefill, decode = group
        if prefill is None and decode in ways.on_one:
            ways.colocated, ways.stand_ins = [decode], []
            ways.prefills, ways.decodes = [], []
            ways.reject(
                PlacementMode.DISAGGREGATED, f"the prompt's prefix is cached on {decode.name}"
            )
        elif prefill in ways.prefills and decode in ways.decodes:
            assert prefill is not None
            ways.prefills, ways.decodes = [prefill], [decode]
            ways.colocated, ways.stand_ins = [], []
            ways.reject(PlacementMode.COLOCATED, f"the prompt's prefix is cached on {prefill.name}")
        else:
            return False
        return True


def _load(engine: EngineState) -> float:
    promised = engine.promised
    return promised.requests + promised.prompt_tokens / PROMPT_LIKE_A_DECODE


def _most_tokens(engine: EngineState) -> int:
    """The most tokens of prompt and answer together."""
    description = engine.description
    return min(description.max_model_len_tokens, description.kv_capacity_tokens)


def why_unfit(engine: EngineState, query: PlacementQuery) -> str:
    """Why the request could never run on it; empty when it could."""
    if not _takes_adapter(engine, query):
        return f"{engine.name} runs without LoRA"
    needed = query.prompt_tokens + query.max_output_tokens
    limit = engine.description.max_model_len_tokens
    if needed > limit:
        return f"{engine.name} takes at most {limit} tokens, this request may need {needed}"
    capacity = engine.description.kv_capacity_tokens
    if needed > capacity:
        return f"the KV cache of {engine.name} holds {capacity} tokens, {needed} may be needed"
    return ""


def takes_prompt(engine: EngineState, query: PlacementQuery) -> bool:
    """Whether the engine can compute the prompt and its first token."""
    return _takes_adapter(engine, query) and query.prompt_tokens < _most_tokens(engine)


def _takes_adapter(engine: EngineState, query: PlacementQuery) -> bool:
    return not query.adapter or engine.description.adapter_slots > 0


def _preferred(engines: list[EngineState], role: Role) -> list[EngineState]:
    return [engine for engine in engines if engine.description.role is role] or engines


def _obey_caller(query: PlacementQuery, ways: Ways) -> bool:
    """Applies the way that the request requires; whether that leaves fewer ways."""
    if query.whole_on_one_engine:
        ways.prefills, ways.decodes = [], []
        ways.reject(PlacementMode.DISAGGREGATED, "splitting this request would change its result")
    elif query.forced_way is PlacementMode.COLOCATED:
        ways.stand_ins, ways.prefills, ways.decodes = [], [], []
        ways.reject(PlacementMode.DISAGGREGATED, "the caller asked for colocated")
    elif query.forced_way is PlacementMode.DISAGGREGATED:
        ways.colocated, ways.stand_ins = [], []
        ways.reject(PlacementMode.COLOCATED, "the caller asked for disaggregated")
    else:
        return False
    return True


def _one_of_each_make(*sides: list[EngineState]) -> list[EngineState]:
    return list({engine.make: engine for side in sides for engine in side}.values())
