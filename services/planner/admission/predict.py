"""Predicts the times of a request on an engine at its present load.

An unknown time is nan, which spreads through sums and compares as not met.
"""

import math
from dataclasses import dataclass

from services.planner.state.cluster import ClusterState
from services.planner.state.engine_state import EngineState
from shared.requests import PlacementQuery
from shared.scheduling.rows import GENERATED, KIND, PROMISED, TPOT


@dataclass(slots=True)
class PrefillForecast:
    """A prompt on one engine. `room_s` is the part of `queue_s` that waits for KV or a slot;
    `cached_tokens` of the prompt need not be computed.
    """

    engine: EngineState
    room_s: float
    queue_s: float
    prefill_s: float
    cached_tokens: int

    @property
    def ready_in_s(self) -> float:
        return self.queue_s + self.prefill_s


@dataclass(slots=True)
class DecodeForecast:
    """The output on one engine, once the KV is there."""

    engine: EngineState
    room_s: float
    tpot_s: float
    decode_s: float

    @property
    def done_in_s(self) -> float:
        return self.room_s + self.decode_s


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    """An engine's load, as forecasts need it.

    Attributes:
        requests: Requests there or on the way.
        free_slots: How many more may run.
        free_kv_tokens: KV tokens left for another request; negative: reserved beyond what is free.
        context_tokens: Context tokens of each step with all requests there or on the way.
        ahead_s: Seconds that the prompts there or on the way take; nan: unknown.
    """

    engine: EngineState
    requests: int
    free_slots: int
    free_kv_tokens: int
    context_tokens: int
    ahead_s: float

    def room_in_s(self, kv_tokens: int, now: float) -> float:
        """Seconds until it has a free slot and room for `kv_tokens`; nan when unknown."""
        if self.free_slots > 0 and self.free_kv_tokens >= kv_tokens:
            return 0.0
        return self.engine.room_in_s(kv_tokens, now)


class Loads:
    """The load of each engine, read when it is first needed and kept for a round."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._known: dict[EngineState, EngineLoad] = {}

    def of(self, engine: EngineState) -> EngineLoad:
        known = self._known.get(engine)
        if known is None:
            known = self._known[engine] = self._read(engine)
        return known

    def _read(self, engine: EngineState) -> EngineLoad:
        requests = engine.requests
        return EngineLoad(
            engine=engine,
            requests=requests,
            free_slots=engine.description.max_running_requests - requests,
            free_kv_tokens=engine.free_kv_tokens,
            context_tokens=engine.context_tokens + engine.unseen_kv_tokens,
            ahead_s=_prefill_s(self._state, engine, engine.prefill_tokens_ahead, beside=engine),
        )


def forecast_prefill(
    state: ClusterState,
    load: EngineLoad,
    tokens: int,
    prompt_tokens: int,
    now: float,
    *,
    shared_tokens: int = 0,
) -> PrefillForecast:
    """Predicts computing `tokens` of a prompt, which first needs room for all of it but for
    `shared_tokens`.
    """
    engine, ahead_s = load.engine, load.ahead_s
    room_s = load.room_in_s(prompt_tokens - shared_tokens, now)
    return PrefillForecast(
        engine=engine,
        room_s=room_s,
        queue_s=math.nan if math.isnan(room_s) or math.isnan(ahead_s) else max(room_s, ahead_s),
        prefill_s=_prefill_s(state, engine, tokens, beside=engine),
        cached_tokens=prompt_tokens - tokens,
    )


def export_s(state: ClusterState, engine: EngineState, cached_tokens: int, now: float) -> float:
    """Seconds until an engine has exported a cached prefix: its running step, then one step with
    the token that it computes beside what is queued there. That step is no longer than the tightest
    pace that the engine holds. nan: unknown.
    """
    room_s = engine.room_in_s(cached_tokens + 1, now)
    most_tokens = engine.description.max_step_tokens
    step_tokens = min(engine.prefill_tokens_ahead + 1, max(1, most_tokens - engine.decode_tokens))
    step_s = _prefill_s(state, engine, step_tokens, beside=engine)
    alone_s = _prefill_s(state, engine, 1, beside=engine)
    step_s = max(alone_s, min(step_s, _tightest_pace_s(engine)))
    return max(room_s, engine.free_at_s(now) - now) + step_s


def _tightest_pace_s(engine: EngineState) -> float:
    """The least TPOT promised to a request that decodes there; infinite without one."""
    rows = engine.rows
    paces_s = rows[(rows[:, KIND] == PROMISED) & (rows[:, GENERATED] > 0), TPOT]
    return float(paces_s.min()) if len(paces_s) else math.inf


def forecast_decode(
    state: ClusterState,
    load: EngineLoad,
    prompt_tokens: int,
    output_tokens: int,
    now: float,
    *,
    shared_tokens: int = 0,
) -> DecodeForecast:
    """Predicts the TPOT at the middle of the output, as if all requests there were decoding. It
    needs room for all of its KV but for `shared_tokens`.
    """
    own_context = prompt_tokens + output_tokens / 2
    context = load.context_tokens + own_context
    tpot_s = step_s(state, load.engine, decode_tokens=load.requests + 1, context_tokens=context)
    return DecodeForecast(
        engine=load.engine,
        room_s=load.room_in_s(prompt_tokens + output_tokens - shared_tokens, now),
        tpot_s=tpot_s,
        decode_s=max(0, output_tokens - 1) * tpot_s,
    )


def transfer_s(
    state: ClusterState,
    prefill: PrefillForecast,
    decode: DecodeForecast,
    prompt_tokens: int,
    now: float,
) -> float:
    """Expected seconds to move the KV of a prompt, see `moving_s`."""
    return moving_s(state, prefill.engine, decode.engine, prompt_tokens, prefill.prefill_s, now)


def moving_s(
    state: ClusterState,
    source: EngineState,
    target: EngineState,
    tokens: int,
    computing_s: float,
    now: float,
) -> float:
    """Expected seconds to move the KV of `tokens`, or to compute it again, which takes
    `computing_s`, as often as it is lost.
    """
    link = state.transfers.link(source.name, target.name, now, source.transports_to(target))
    moved_s, share = link.likely_s(state.kv_bytes(source, tokens)), link.recomputed_share
    return moved_s + share * computing_s if share else moved_s


def idle_prefill_s(state: ClusterState, engine: EngineState, prompt_tokens: int) -> float:
    """The zero-load TTFT of an engine, without its present drift."""
    return _prefill_s(state, engine, prompt_tokens, beside=None) / _drift(state, engine)


def idle_tpot_s(
    state: ClusterState, engine: EngineState, query: PlacementQuery, now: float
) -> float:
    """The zero-load TPOT of an engine with its best draft length, without its present drift."""
    table = engine.table or state.any_table
    if table is None:
        return math.nan
    most_drafts = engine.description.max_speculation_tokens
    name, context_tokens = query.targets.class_name, query.prompt_tokens
    alone = state.quickest_alone(table, most_drafts, context_tokens, name, now)
    return alone.tpot_s / table.drift


def _drift(state: ClusterState, engine: EngineState) -> float:
    table = engine.table or state.any_table
    return 1.0 if table is None else table.drift


def step_s(
    state: ClusterState, engine: EngineState, decode_tokens: float, context_tokens: float
) -> float:
    table = engine.table or state.any_table
    if table is None:
        return math.nan
    return table.decodes_s(decode_tokens, context_tokens)


def _prefill_s(
    state: ClusterState, engine: EngineState, tokens: int, *, beside: EngineState | None
) -> float:
    """Seconds to compute `tokens`. `beside`: the engine with decodes in each step, if any."""
    table = engine.table or state.any_table  # another engine's where it has none yet
    if tokens <= 0:
        return 0.0
    if table is None:
        return math.nan
    most_tokens = engine.description.max_step_tokens
    if beside is None:
        return table.prompt_s(tokens, most_tokens)
    decodes = beside.decode_tokens
    chunk_tokens = max(1, most_tokens - decodes)
    return table.prompt_s(
        tokens, chunk_tokens, decodes=decodes, context_tokens=beside.context_tokens
    )
