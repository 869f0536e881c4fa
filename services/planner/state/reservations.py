"""Builds the holds of a placed request on its engines."""

from dataclasses import replace

from services.planner.state.demand import Demand
from services.planner.state.engine_reservations import Reservation
from services.planner.state.engine_state import EngineState
from shared.requests import PrefixSource


def colocated(
    whole: Reservation, demand: Demand, engine: EngineState, *, best_effort: bool
) -> Reservation:
    """The hold of a request that runs on one engine, from `whole.due_at_s` on."""
    computed, shared = demand.computed_on(engine.description), demand.shared_on(engine.description)
    row = demand.whole(computed, whole.due_at_s, shared=shared, best_effort=best_effort)
    return replace(whole, kv_tokens=whole.kv_tokens - shared, row=row)


def pulled(
    whole: Reservation,
    demand: Demand,
    source: PrefixSource,
    begins_at_s: float,
    *,
    best_effort: bool,
) -> tuple[Reservation, Reservation]:
    """The holds of a request on its engine, which begins when the prefix has arrived, and on the
    engine that exports it.
    """
    tokens, from_s = source.tokens, whole.due_at_s
    row = demand.whole(tokens, begins_at_s, best_effort=best_effort)
    export = demand.export(from_s, from_s + source.limit_s, best_effort=best_effort)
    run = replace(whole, prefill_tokens=demand.prompt_tokens - tokens, row=row)
    there = replace(
        whole, prefill_tokens=1, kv_tokens=tokens + 1, ends_at_s=begins_at_s, row=export
    )
    return run, there


def split(
    whole: Reservation,
    demand: Demand,
    start: EngineState,
    first_at_s: float,
    arrives_at_s: float,
    *,
    best_effort: bool,
) -> tuple[Reservation, Reservation]:
    """The holds of the prompt on `start`, which gives the first token at `first_at_s`, and of the
    rest on another engine, where the KV is at `arrives_at_s`.
    """
    computed, kv_tokens = demand.computed_on(start.description), demand.prompt_tokens
    row = demand.prompt_only(computed, whole.due_at_s, best_effort=best_effort)
    prompt = replace(whole, kv_tokens=kv_tokens, ends_at_s=arrives_at_s, row=row)
    row = demand.answer_only(first_at_s, arrives_at_s, best_effort=best_effort)
    return prompt, replace(whole, prefill_tokens=0, due_at_s=arrives_at_s, row=row)
