"""Finds where pulling a cached prefix from another engine is faster than computing it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from services.planner.admission.predict import (
    Loads,
    PrefillForecast,
    export_s,
    forecast_prefill,
    moving_s,
)
from services.planner.state.cluster import ClusterState
from services.planner.state.demand import Demand
from services.planner.state.engine_state import EngineState
from services.planner.tuning import MOST_CACHED
from shared.requests import PlacementQuery, PrefixSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """The first `tokens` of a prompt, pulled from the prefix cache of `source`.

    Attributes:
        own_tokens: How many of them the pulling engine has cached itself.
        forecast_s: Until the source has exported them, by its load alone.
        ready_s: The same, with what its exports took beyond that of late.
        moved_s: The transfer, or computing the tokens as often as the export or transfer fails.
        saved_s: What the pulling engine would take to compute them.
    """

    source: EngineState
    tokens: int
    own_tokens: int
    forecast_s: float
    ready_s: float
    moved_s: float
    saved_s: float

    @property
    def arrives_in_s(self) -> float:
        return self.ready_s + self.moved_s

    @property
    def gain_s(self) -> float:
        """What pulling saves; nan where a time is unknown."""
        return self.saved_s - self.arrives_in_s

    @property
    def limit_s(self) -> float:
        """The longest time to export after which pulling is no slower than computing."""
        return self.saved_s - self.moved_s

    @property
    def wire(self) -> PrefixSource:
        return PrefixSource(
            engine=self.source.ref,
            tokens=self.tokens,
            limit_s=self.limit_s,
            forecast_s=self.forecast_s,
        )


def sources_of(
    query: PlacementQuery, state: ClusterState, demand: Demand, now: float
) -> list[EngineState]:
    """The engines with the most of the prompt cached, from which it may be pulled."""
    fixed = query.whole_on_one_engine or query.forced_way is not None
    if not state.numbers.pull_prefixes or fixed or not demand.cached_tokens:
        return []
    if state.group_engines(query.group_id, now) is not None:
        return []
    having = [state.engines[name] for name in demand.cached_tokens if name in state.engines]
    able = [
        engine
        for engine in having
        if engine.serves and engine.exchanges and engine.description.engine_id not in query.avoid
    ]
    able.sort(key=lambda engine: (-demand.cached_tokens[engine.name], engine.requests))
    return able[:MOST_CACHED]


def best_pull(
    start: PrefillForecast,
    sources: Iterable[EngineState],
    state: ClusterState,
    demand: Demand,
    loads: Loads,
    now: float,
) -> tuple[Pull, PrefillForecast] | None:
    """The pull that saves the most on the engine of `start`, and its prompt with it; None where
    computing is as fast.
    """
    engine, best, rest = start.engine, None, start
    own_tokens = demand.computed_on(engine.description)
    for source in sources:
        tokens = _pulled_tokens(source, engine, demand)
        if tokens <= own_tokens:
            continue
        forecast = forecast_prefill(
            state, loads.of(engine), demand.prompt_tokens - tokens, demand.prompt_tokens, now
        )
        saved_s = start.prefill_s - forecast.prefill_s
        forecast_s = export_s(state, source, tokens, now)
        moved_s = moving_s(state, source, engine, tokens - own_tokens, saved_s, now)
        pull = Pull(
            source=source,
            tokens=tokens,
            own_tokens=own_tokens,
            forecast_s=forecast_s,
            ready_s=state.exports.likely_s(source.name, forecast_s, now),
            moved_s=moved_s + state.exports.failed_share(source.name, now) * saved_s,
            saved_s=saved_s,
        )
        if pull.gain_s > (0.0 if best is None else best.gain_s):
            best, rest = pull, forecast
    if best is None:
        return None
    queue_s = max(rest.queue_s, best.arrives_in_s)
    return best, replace(rest, queue_s=math.nan if math.isnan(rest.queue_s) else queue_s)


def _pulled_tokens(source: EngineState, engine: EngineState, demand: Demand) -> int:
    """Whole blocks that the source has of the prompt and this engine can pull; 0: none.

    The source computes one more token, and at least one is left to the pulling engine.
    """
    there, here = source.description, engine.description
    same = (there.block_size_tokens, there.kv_bytes_per_token) == (
        here.block_size_tokens,
        here.kv_bytes_per_token,
    )
    if not (same and source.exchanges_with(engine)):
        return 0
    tokens = min(demand.computed_on(there), demand.prompt_tokens - 2)
    return max(0, tokens - tokens % there.block_size_tokens)
