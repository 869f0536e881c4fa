"""Lets requests without a promise run one after the other, and not where promises are at stake."""

import math

from services.planner.admission.pending import Deferral
from services.planner.admission.placement import Decision
from services.planner.state.cluster import ClusterState
from services.planner.state.engine_state import EngineState
from services.planner.tuning import LONGEST_TURN_S
from shared.requests import PlacementQuery


def in_turn(
    query: PlacementQuery,
    decision: Decision | Deferral,
    state: ClusterState,
    now: float,
    *,
    others_first: bool,
) -> Decision | Deferral:
    """The decision, or a deferral where another request is to run first or its engine is backed up.
    Requests beyond a tenant's share are deferred as long as the gateway waits.
    """
    assert isinstance(decision, Decision)
    decode = decision.placement.decode
    engine = state.engines.get(decode.name) if decode else None
    if not others_first and (engine is None or _takes_in(engine, query.waited_s)):
        return decision
    never_s = math.inf
    return Deferral(takes_s=0.0, due_s=never_s, latest_s=never_s, looked_s=now, unpromised=True)


def _takes_in(engine: EngineState, waited_s: float) -> bool:
    """Whether an engine takes one more request without a promise. One that has waited for
    LONGEST_TURN_S may queue behind promised prompts there, so that it does not starve.
    """
    return not (engine.many_wait if waited_s >= LONGEST_TURN_S else engine.is_backed_up)
