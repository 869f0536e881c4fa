"""Requests that want a promise, and which of them the admission DP accepts on an engine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from services.planner.admission.candidates import Candidate, Goal
from services.planner.admission.dynamic_program import MOST_CANDIDATES, Problem, best_set
from services.planner.admission.feasibility import EngineWhatIf, Feasibility
from services.planner.state.demand import Demand
from services.planner.state.engine_state import EngineState
from shared.batch_time.table import FloatArray
from shared.requests import PlacementQuery, Reason
from shared.scheduling.rows import COMPUTED, DEADLINE, GENERATED, KIND, PROMISED, TOTAL, TPOT, Rows
from shared.scheduling.shares import LONGEST_S, MAX_TOKENS
from shared.scheduling.tiers import tiers_of

_FAR_S = 3600.0  # a finite stand-in for "never due"


@dataclass(slots=True, eq=False, kw_only=True)
class AdmissionRequest:
    """A request that wants a promise, with its open ways, the best one first."""

    query: PlacementQuery
    goal: Goal
    demand: Demand
    kv_tokens: int
    ways: list[Candidate]
    chosen: Candidate | None = None
    trials: list[Feasibility] = field(default_factory=list)  # of ways that did not hold

    @property
    def class_name(self) -> str:
        return self.query.targets.class_name

    @property
    def value(self) -> float:
        return self.query.targets.value

    @property
    def reason(self) -> Reason:
        """Why no way held: MEMORY if that is the reason of all of them."""
        reasons = {trial.reason for trial in self.trials}
        return Reason.MEMORY if reasons == {Reason.MEMORY} else Reason.COMPUTE


def ways_to(
    requests: Sequence[AdmissionRequest], engine: EngineState
) -> dict[int, Candidate | None]:
    """The way of each request on this engine alone, by the request's id; None without one."""
    return {
        id(request): next((w for w in request.ways if w.on_one and w.decode.engine is engine), None)
        for request in requests
    }


def total_value(requests: Iterable[AdmissionRequest]) -> float:
    return sum(request.value for request in requests)


def chosen_by_dp(
    what_if: EngineWhatIf, requests: Sequence[AdmissionRequest]
) -> tuple[list[AdmissionRequest], list[AdmissionRequest]]:
    """The requests that the DP accepts on this engine, and the others; by value, then EDF."""
    by_worth = sorted(requests, key=lambda request: (-request.value, request.demand.due_s))
    tried = by_worth[:MOST_CANDIDATES]
    taken = {id(w) for w, yes in zip(tried, _accepted(what_if, tried), strict=True) if yes}
    first = [request for request in by_worth if id(request) in taken]
    return first, [request for request in by_worth if id(request) not in taken]


def _accepted(what_if: EngineWhatIf, requests: Sequence[AdmissionRequest]) -> list[bool]:
    running = what_if.rows[what_if.rows[:, KIND] == PROMISED]
    paces_s = np.concatenate(
        [running[:, TPOT], [request.demand.grace.pace_s for request in requests]]
    )
    contexts = np.concatenate(
        [running[:, TOTAL], [request.demand.prompt_tokens for request in requests]]
    )
    tiers, tier_of = np.unique(tiers_of(paces_s), return_inverse=True)
    items = np.zeros((len(paces_s), 6))
    items[: len(running), 0] = np.where(
        running[:, GENERATED] > 0, 0.0, running[:, DEADLINE] - what_if.now
    )
    items[: len(running), 1] = _prompt_left(running)
    items[: len(running), 5] = 1.0
    for place, request in enumerate(requests, start=len(running)):
        demand = request.demand
        hit = demand.computed_on(what_if.engine.description)
        due_s, prompt_tokens = demand.due_s - what_if.now, demand.prompt_tokens - hit
        own_tokens = request.kv_tokens - demand.shared_on(what_if.engine.description)
        items[place, [0, 1, 3, 4]] = (
            due_s,
            prompt_tokens,
            what_if.kv_room.blocks_of(own_tokens),
            request.value,
        )
    items[:, 0] = np.clip(items[:, 0], 0.0, _FAR_S)
    items[:, 2] = tier_of
    order = np.argsort(items[:, 0], kind="stable")
    members = [tier_of == tier for tier in range(len(tiers))]
    problem = Problem(
        items=items[order],
        paces_s=np.array([min(_FAR_S, paces_s[one].min()) for one in members]),
        contexts=np.array([contexts[one].mean() for one in members]),
        free_blocks=what_if.engine.description.kv_blocks - what_if.kv_blocks,
        busy_s=what_if.engine.free_at_s(what_if.now) - what_if.now,
        max_tokens=float(what_if.engine.limits[MAX_TOKENS]),
        longest_s=float(what_if.engine.limits[LONGEST_S]),
        table=what_if.table,
    )
    accepted = np.zeros(len(items), dtype=bool)
    accepted[order] = best_set(problem)
    return [bool(one) for one in accepted[len(running) :]]


def _prompt_left(rows: Rows) -> FloatArray:
    left: FloatArray = np.where(rows[:, GENERATED] > 0, 0.0, rows[:, TOTAL] - rows[:, COMPUTED])
    return left
