"""Engines, reports, queries and clusters for the planner's tests; step costs are known."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from services.planner.admission.placement import Decision
from services.planner.admission.placement import decide as decide_over
from services.planner.admission.placement_options import Fleet
from services.planner.planner_config import PlannerConfig
from services.planner.state.cluster import ClusterState
from services.planner.state.engine_state import EngineState
from shared.batch_time import BatchTimeModel, StepCost
from shared.engines import EngineDescription, KvAddress, Role, StepReport
from shared.requests import Explanation, Outcome, PlacementQuery, SloTargets

# 10 ms per step, 1 ms per prompt token, 1 ms per decoding request
COST = StepCost(fixed_s=0.01, per_prefill_token_s=0.001, per_decode_token_s=0.001)
LONG_AFTER_S = 1000.0


def make_engine(name: str = "d0", role: Role = Role.DECODE, **changed: Any) -> EngineDescription:
    fields: dict[str, Any] = {
        "engine_id": f"{name}-first",
        "address": f"127.0.0.1:{9000 + len(name)}",
        "model": "m",
        "vllm_version": "0.32.0",
        "block_size_tokens": 16,
        "kv_blocks": 256,
        "kv_bytes_per_token": 1000,
        "max_model_len_tokens": 2048,
        "max_running_requests": 8,
        "max_step_tokens": 512,
        "max_speculation_tokens": 0,
        "kv_address": KvAddress(transport="nixl", host="127.0.0.1", port=7000),
    }
    return EngineDescription(name=name, role=role, **(fields | changed))


def make_report(**changed: Any) -> StepReport:
    """A step that taught nothing and left the engine idle, unless changed."""
    fields: dict[str, Any] = {
        "step": 1,
        "ended_at_s": 0.0,
        "duration_s": 0.0,
        "prefill_tokens": 0,
        "decode_tokens": 0,
        "decode_context_tokens": 0,
        "speculated_tokens": 0,
        "accepted_tokens": 0,
        "running": 0,
        "waiting": 0,
        "queued_prefill_tokens": 0,
        "free_kv_blocks": 256,
    }
    return StepReport(**(fields | changed))


def make_query(request_id: str = "r1", **changed: Any) -> PlacementQuery:
    fields: dict[str, Any] = {
        "group_id": request_id,
        "model": "m",
        "targets": SloTargets(),
        "prompt_tokens": 100,
        "max_output_tokens": 50,
    }
    return PlacementQuery(request_id=request_id, **(fields | changed))


def make_cluster(
    *engines: EngineDescription, cost: StepCost | None = COST, **numbers: Any
) -> ClusterState:
    """Started at 0; steps of all engines take `cost`, None: unknown times."""
    state = ClusterState(PlannerConfig(**numbers), epoch="e", now=0.0)
    for engine in engines:
        add(state, engine, cost)
    return state


def add(
    state: ClusterState, engine: EngineDescription, cost: StepCost | None = COST
) -> EngineState:
    registered, refusal = state.register(engine)
    assert registered is not None, refusal
    if cost is not None:
        registered.table = BatchTimeModel(cost).table
    return registered


def decide(query: PlacementQuery, state: ClusterState, now: float) -> Decision:
    """For a request that is decided alone."""
    return decide_over(query, state, Fleet(state).open_ways(query, now), now)


def place(state: ClusterState, query: PlacementQuery, now: float = LONG_AFTER_S) -> Decision:
    """Decides a query and records the decision."""
    return commit(state, query, decide(query, state, now), now)


def commit(state: ClusterState, query: PlacementQuery, decision: Decision, now: float) -> Decision:
    """Records a decision under the next id."""
    placement = replace(decision.placement, decision_id=state.next_decision_id)
    explanation = Explanation(
        query=query, placement=placement, decided_at_epoch_s=0.0, ways=decision.ways
    )
    state.commit(explanation, decision.chosen, now)
    return replace(decision, placement=placement)


def make_outcome(decision: Decision, **changed: Any) -> Outcome:
    fields: dict[str, Any] = {"finished": "stop", "output_tokens": 10, "request_id": "r1"}
    return Outcome(decision_id=decision.placement.decision_id, **(fields | changed))


def held(state: ClusterState) -> int:
    """All that is in flight, by any measure that the state keeps."""
    return sum(
        len(engine.seen)
        + len(engine.unseen)
        + engine.unseen_prefill_tokens
        + engine.unseen_kv_tokens
        for engine in state.engines.values()
    )


def both_roles(make: Callable[..., EngineDescription] = make_engine) -> list[EngineDescription]:
    return [make("p0", Role.PREFILL), make("d0", Role.DECODE)]
