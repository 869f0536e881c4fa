"""Builds the queries and outcomes that a gateway would send for simulated requests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.evaluation.engine_reports import MODEL
from services.evaluation.reported_prefixes import prompt_hashes
from shared.requests import (
    Admission,
    OnRefuse,
    Outcome,
    Pacing,
    Placement,
    PlacementMode,
    PlacementQuery,
    SloTargets,
)
from shared.scheduling.rows import BEST_EFFORT, NO_SLO, PROMISED, key_of
from shared.simulation.system import Ended, Route, SimRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Wants:
    """What every query says. `best_effort`: a request without a promise runs all the same; `way`:
    the only one that is allowed; `most_tokens`: limit on prompt and answer together; `prefixes`: it
    has the prompt's hashes; `sessions`: it names its session.
    """

    best_effort: bool
    way: PlacementMode | None
    most_tokens: int
    prefixes: bool = True
    sessions: bool = True


def query_of(
    request: SimRequest, wants: Wants, now: float, *, avoid: Sequence[str] = ()
) -> PlacementQuery:
    """The gateway's query at `now`; `avoid` are ids of engines."""
    return PlacementQuery(
        request_id=request.name,
        group_id=request.name,
        session_id=request.program_id if wants.sessions and request.in_session else None,
        model=MODEL,
        targets=_targets(request, wants),
        prompt_tokens=request.prompt_tokens,
        max_output_tokens=_most_output_tokens(request, wants),
        waited_s=now - request.arrives_s,
        forced_way=wants.way,
        avoid=tuple(avoid),
        prompt_hashes=prompt_hashes(request) if wants.prefixes else None,
    )


def _most_output_tokens(request: SimRequest, wants: Wants) -> int:
    """The most that the call allows and that the model's length leaves."""
    left = request.call.max_output_tokens - request.produced
    return max(1, min(left, wants.most_tokens - request.prompt_tokens))


def _targets(request: SimRequest, wants: Wants) -> SloTargets:
    targets = request.call.targets(OnRefuse.BEST_EFFORT if wants.best_effort else OnRefuse.REFUSE)
    asks_start = math.isfinite(request.ttft_s) and not request.produced
    ttft_s = request.ttft_s if asks_start else None
    return replace(targets, ttft_s=ttft_s, ttft_slowdown=None)


def route_of(placement: Placement, targets: SloTargets) -> Route:
    """Where a request with these targets runs. One without targets has those of its session, which
    the placement names.
    """
    assert placement.decode is not None
    best_effort = placement.admission is Admission.BEST_EFFORT
    in_force = placement.ttft_s is not None or placement.tpot_s is not None
    kind = NO_SLO if targets.asks_for_nothing and not in_force else PROMISED
    source = placement.prefix_source
    return Route(
        decode=placement.decode.name,
        prefill=placement.prefill.name if placement.prefill else None,
        kind=BEST_EFFORT if best_effort else kind,
        admission=placement.admission,
        key=key_of(placement.decision_id),
        grace_s=placement.grace_s,
        pace_share=placement.pace_share,
        delivery_s=placement.delivery_s,
        by_deadlines=placement.pacing is Pacing.DEADLINES,
        source=source.engine.name if source else None,
        pulled_tokens=source.tokens if source else 0,
        export_limit_s=source.limit_s if source else 0.0,
    )


def outcome_of(ended: Ended, decision_id: str, moves: int) -> Outcome:
    """The outcome of a request that ended, after it moved to another engine `moves` times."""
    request, later_s = ended.request, ended.last_s - ended.first_s
    return Outcome(
        decision_id=decision_id,
        request_id=request.name,
        finished="length" if ended.tokens >= request.call.max_output_tokens else "stop",
        output_tokens=ended.tokens,
        ttft_s=ended.first_s - request.arrives_s,
        tpot_s=later_s / (ended.tokens - 1) if ended.tokens > 1 else None,
        recomputed=ended.recomputed,
        transfer_s=ended.moved_s,
        held_s=ended.placed_s - request.arrives_s,
        queue_s=ended.started_s - ended.placed_s,
        prefill_s=ended.first_s - ended.started_s,
        stage_lateness=ended.stage_lateness,
        moves=moves,
    )


def moved_outcome(request: SimRequest, decision_id: str, moves: int) -> Outcome:
    """The outcome of a decision that is void because its engine is gone; the request goes on
    elsewhere.
    """
    return Outcome(
        decision_id=decision_id,
        request_id=request.name,
        finished="moved",
        output_tokens=request.produced,
        moves=moves,
    )
