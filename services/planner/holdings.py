"""What a placed request takes of its engines. Pure; the engines' books are kept elsewhere."""

from collections.abc import Iterator
from dataclasses import replace

from services.planner.demand import Demand
from services.planner.engine_state import EngineState, Hold


def colocated(
    whole: Hold, demand: Demand, engine: EngineState, *, best_effort: bool
) -> Iterator[tuple[EngineState, Hold]]:
    """All of it is on one engine, from `whole.due_at_s` on."""
    computed = demand.computed_on(engine.description)
    row = demand.whole(computed, whole.due_at_s, best_effort=best_effort)
    yield engine, replace(whole, row=row)


def split(
    whole: Hold,
    demand: Demand,
    start: EngineState,
    end: EngineState,
    first_at_s: float,
    arrives_at_s: float,
    *,
    best_effort: bool,
) -> Iterator[tuple[EngineState, Hold]]:
    """The prompt, its first token at `first_at_s`, on `start`; what follows on `end`, where the KV
    is at `arrives_at_s`.
    """
    computed = demand.computed_on(start.description)
    row = demand.prompt_only(computed, whole.due_at_s, best_effort=best_effort)
    kv_tokens = demand.prompt_tokens
    yield start, replace(whole, kv_tokens=kv_tokens, ends_at_s=arrives_at_s, row=row)
    row = demand.answer_only(first_at_s, arrives_at_s, best_effort=best_effort)
    yield end, replace(whole, prefill_tokens=0, due_at_s=arrives_at_s, row=row)
