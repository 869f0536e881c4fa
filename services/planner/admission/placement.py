"""Places one request: filters the ways, scores them and picks one."""

import math
from dataclasses import dataclass

from services.planner.admission import answers
from services.planner.admission.candidates import (
    Candidate,
    Goal,
    best_idle_tpot_s,
    best_idle_ttft_s,
    goal_of,
    rank,
)
from services.planner.admission.placement_options import Ways, why_unfit
from services.planner.admission.predict import Loads
from services.planner.state.cluster import ClusterState
from shared.requests import (
    Admission,
    Placement,
    PlacementMode,
    PlacementOption,
    PlacementQuery,
    Reason,
)

_WAYS_KEPT = 8  # of each kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer, the best ways considered, and the way that the request runs (None: none)."""

    placement: Placement
    ways: tuple[PlacementOption, ...] = ()
    chosen: PlacementOption | None = None


def decide(query: PlacementQuery, state: ClusterState, ways: Ways, now: float) -> Decision:
    """Picks the way of the earliest predicted end, if possible among those that keep the targets.

    For requests without targets, and where too little is known to promise anything.
    """
    no = early_no(query, state, ways, now)
    if no is not None:
        return no
    goal = goal_of(query, state, ways)
    demand = state.demand(query, math.inf, now)  # its targets are in the goal
    candidates = rank(query, state, ways, goal, demand, Loads(state), now)
    placement = _answer(query, state, ways, candidates[0], goal, now)
    return decision_of(placement, candidates, goal, ways)


def early_no(query: PlacementQuery, state: ClusterState, ways: Ways, now: float) -> Decision | None:
    """The answer to a request that cannot run here, or not now; None when it can."""
    contradiction = _impossible(query, state)
    if contradiction:
        return Decision(placement=answers.refused(query, "", Reason.NEVER, contradiction))
    if not ways.exist:
        return Decision(placement=_nowhere(query, state, now), ways=tuple(ways.rejected))
    return None


def _impossible(query: PlacementQuery, state: ClusterState) -> str:
    """Why no fleet of this model could run the request; empty when one could."""
    if query.whole_on_one_engine and query.forced_way is PlacementMode.DISAGGREGATED:
        return (
            "Disaggregated was asked for, but splitting this request between two engines would "
            "change its result; ask for colocated or leave the choice to us."
        )
    model = state.model
    if model is not None and query.model != model:
        return f"This fleet serves {model!r}, not {query.model!r}."
    return ""


def _nowhere(query: PlacementQuery, state: ClusterState, now: float) -> Placement:
    numbers = state.numbers
    serving = list(state.serving())
    if serving and all(why_unfit(engine, query) for engine in serving):
        widest = max(serving, key=lambda engine: engine.description.max_model_len_tokens)
        message = f"No engine could ever run this request: {why_unfit(widest, query)}."
        return answers.refused(query, "", Reason.NEVER, message)
    message = _who_is_missing(state, bool(serving))
    if state.in_grace(now):
        return answers.deferred(query, "", message, numbers.hold_s)
    again = f" Try again in {answers.seconds(numbers.retry_after_s)}."
    return answers.refused(
        query,
        "",
        Reason.NO_ENGINE,
        message + again,
        retry_after_s=numbers.retry_after_s,
    )


def _who_is_missing(state: ClusterState, anybody_serves: bool) -> str:
    if anybody_serves:
        return (
            "Disaggregated was asked for, but no two engines that exchange KV and could hold "
            "this request are attached."
        )
    if state.engines:
        return f"All engines attached ({len(state.engines)}) are draining or stalled."
    return "No engine is attached."


def _answer(
    query: PlacementQuery,
    state: ClusterState,
    ways: Ways,
    best: Candidate,
    goal: Goal,
    now: float,
) -> Placement:
    if not best.misses(goal):
        return answers.promised(query, "", best, goal)
    if not best.surely_misses(goal):
        return answers.unknowable(query, "", best, goal)
    best_idle = Goal(
        ttft_s=best_idle_ttft_s(query, state, ways),
        tpot_s=best_idle_tpot_s(query, state, ways, now),
    )
    return answers.missed(
        query,
        "",
        best,
        goal,
        best_idle,
        state.numbers.retry_after_s,
        state.refusals.over_in_s(query.targets.class_name, now),
    )


def _best_of_each_way(candidates: list[Candidate]) -> list[Candidate]:
    """The first `_WAYS_KEPT` of each kind of way, in the order given."""
    left = {True: _WAYS_KEPT, False: _WAYS_KEPT}
    kept = []
    for candidate in candidates:
        left[candidate.colocated] -= 1
        if left[candidate.colocated] >= 0:
            kept.append(candidate)
    return kept


def decision_of(
    placement: Placement, candidates: list[Candidate], goal: Goal, ways: Ways
) -> Decision:
    """The decision with its ways, the best one first. Ways that miss the goal count as rejected,
    unless the request runs as best effort.
    """
    runs_anyway = placement.admission is Admission.BEST_EFFORT
    considered = [
        candidate.considered(
            "" if runs_anyway else candidate.rejected or answers.miss_words(candidate, goal)
        )
        for candidate in _best_of_each_way(candidates)
    ]
    return Decision(
        placement=placement,
        ways=(*considered, *ways.rejected),
        chosen=considered[0] if placement.runs else None,
    )
