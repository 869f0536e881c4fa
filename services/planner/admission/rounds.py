"""Decides all waiting requests together; the caller records the decisions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from services.planner.admission import answers
from services.planner.admission.adapter_room import AdapterRoom
from services.planner.admission.admission_requests import AdmissionRequest
from services.planner.admission.candidates import (
    Candidate,
    Goal,
    best_idle_tpot_s,
    best_idle_ttft_s,
    goal_of,
    rank,
)
from services.planner.admission.pending import Deferral, PendingRequest
from services.planner.admission.placement import Decision, decide, decision_of, early_no
from services.planner.admission.placement_options import Ways
from services.planner.admission.promises import Round
from services.planner.admission.turns import in_turn
from services.planner.estimators.kv_demand import KvRanks
from services.planner.state.cluster import ClusterState
from services.planner.state.demand import Demand
from services.planner.state.tenants import Turns
from services.planner.tuning import MOST_AT_ONCE, PLACED_BEFORE_S, TRIED_AGAIN
from shared.requests import Admission, OnRefuse, Pacing, PlacementQuery, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class _TargetedRequest:
    """One request with targets. `idle` are its zero-load times on the fastest engines."""

    query: PlacementQuery
    ways: Ways
    goal: Goal
    idle: Goal
    demand: Demand
    deferral: Deferral


def decide_round(
    asked: Sequence[PendingRequest], state: ClusterState, now: float
) -> list[Decision | Deferral | None]:
    """Returns, for each request in the order given, a decision, or what is known of it while it is
    deferred (None: not looked at yet).

    Promises are made for all requests of a tenant at once, one tenant after the other, and leave
    room for the next requests of the tenants before. Requests without targets are placed one per
    round: the others are deferred until the first one is recorded. Where several tenants share the
    fleet, this holds for best effort as well.
    """
    turns = state.tenants.turns(((one.query.tenant, one.first_asked_at_s) for one in asked), now)
    round_ = Round(state, KvRanks() if turns.several else state.kv_ranks(now), now)
    adapter_room = AdapterRoom(state.serving())
    decisions: list[Decision | Deferral | None] = [one.deferral for one in asked]
    next_ = _next_in_turn(asked, turns)
    looked_at = _looked_at(asked, round_, turns, now, next_)
    queries = {n: state.sessions.enrich(asked[n].as_of(now).query, now) for n in looked_at}
    with_targets = _with_targets(queries, round_, now)
    ready = [number for number in with_targets if not _only_waits_its_turn(asked[number])]
    crowding_classes = frozenset() if turns.several else state.crowding_classes(now)
    beyond = {} if turns.several else state.beyond_tight_pool(now)
    able = [n for n in ready if with_targets[n].query.targets.class_name not in crowding_classes]
    requests = _admission_requests(
        {number: with_targets[number] for number in able}, round_, turns, beyond, adapter_room, now
    )
    for tenant, expected in turns.line:
        own = [request for request in requests.values() if request.query.tenant == tenant]
        if own:
            round_.promise(own)
        if expected is not None and turns.several:
            round_.set_aside(expected)
    somebody_placed = False
    for number in looked_at:
        query, targeted = queries[number], with_targets.get(number)
        if targeted is not None:
            decision: Decision | Deferral = _answer(
                targeted,
                requests.get(number),
                round_,
                crowding_classes,
                _tried_s(asked[number]),
                now,
            )
        elif somebody_placed:
            continue
        else:
            ways = round_.fleet.open_ways(query, now)
            with_room = adapter_room.ways_for(query.adapter, ways)
            decision = decide(query, state, with_room if with_room.exist else ways, now)
        if turns.several and _runs_unpromised(decision):
            others_first = somebody_placed or _comes_behind(asked, number, next_, turns)
            decision = in_turn(query, decision, state, now, others_first=others_first)
        decisions[number] = decision
        somebody_placed |= _runs_unpromised(decision) and (targeted is None or turns.several)
    return decisions


def _next_in_turn(asked: Sequence[PendingRequest], turns: Turns) -> int | None:
    """The oldest request that waits to run without a promise, of the first tenant that has one."""
    waiting = [number for number, one in enumerate(asked) if _only_waits_its_turn(one)]
    return min(
        waiting,
        key=lambda n: (turns.tenants.index(asked[n].query.tenant), asked[n].first_asked_at_s),
        default=None,
    )


def _comes_behind(
    asked: Sequence[PendingRequest], number: int, next_: int | None, turns: Turns
) -> bool:
    """Whether a request without a promise has to wait behind the `next_` one."""
    if next_ is None or number == next_:
        return False
    place_of = turns.tenants.index
    return place_of(asked[number].query.tenant) >= place_of(asked[next_].query.tenant)


def _looked_at(
    asked: Sequence[PendingRequest], round_: Round, turns: Turns, now: float, next_: int | None
) -> list[int]:
    """The requests to look at in this round: those that are new, can wait no longer or are `next_`,
    then those that were not looked at for the longest. Deferred long prompts are left out. The
    tenants take turns.
    """
    must, may = [], []
    for number, one in enumerate(asked):
        if one.deferral is None or number == next_ or now >= one.deferral.latest_s:
            must.append(number)
        elif not one.deferral.unpromised and not _is_deferred_long_prompt(
            one.deferral, one.query, round_, turns, now
        ):
            may.append((one.deferral.looked_s, number))

    def tenant_of(number: int) -> str:
        return asked[number].query.tenant

    alternated = turns.alternate([number for _, number in sorted(may)], tenant_of)
    return turns.alternate(sorted(must + alternated[: max(0, MOST_AT_ONCE - len(must))]), tenant_of)


def _is_deferred_long_prompt(
    deferral: Deferral, query: PlacementQuery, round_: Round, turns: Turns, now: float
) -> bool:
    """Whether the request is a long prompt to be deferred; never one of the first tenant."""
    if now >= deferral.latest_s or turns.comes_first(query.tenant):
        return False
    return round_.state.long_prompt_deferral.defers(
        deferral.takes_s, deferral.due_s - now, round_.ahead_s
    )


def _with_targets(
    queries: Mapping[int, PlacementQuery], round_: Round, now: float
) -> dict[int, _TargetedRequest]:
    """The requests with targets that may be promised."""
    asking = {n: query for n, query in queries.items() if not query.targets.asks_for_nothing}
    with_targets = {
        number: _with_idle_times(query, round_, now) for number, query in asking.items()
    }
    return {number: targeted for number, targeted in with_targets.items() if targeted is not None}


def _with_idle_times(query: PlacementQuery, round_: Round, now: float) -> _TargetedRequest | None:
    """None where the request cannot run, or no step times are known."""
    state = round_.state
    ways = round_.fleet.open_ways(query, now)
    if state.any_table is None or early_no(query, state, ways, now) is not None:
        return None
    idle = Goal(
        ttft_s=best_idle_ttft_s(query, state, ways),
        tpot_s=best_idle_tpot_s(query, state, ways, now),
    )
    goal = goal_of(query, state, ways)
    ttft_s = math.inf if goal.ttft_s is None else goal.ttft_s
    demand = state.demand(query, ttft_s, now)
    deferral = Deferral(
        takes_s=state.prompt_s(demand.least_to_compute),
        due_s=demand.due_s,
        latest_s=_latest_s(demand, goal, idle, state),
        looked_s=now,
    )
    return _TargetedRequest(
        query=query, ways=ways, goal=goal, idle=idle, demand=demand, deferral=deferral
    )


def _latest_s(demand: Demand, goal: Goal, idle: Goal, state: ClusterState) -> float:
    """The last time at which a request placed on an idle engine is in time, with a little slack."""
    if goal.ttft_s is None or idle.ttft_s is None:
        return demand.arrived_at_s + state.numbers.patience_s
    return demand.due_s - idle.ttft_s - state.client_latency.both_s - PLACED_BEFORE_S


def _admission_requests(
    with_targets: Mapping[int, _TargetedRequest],
    round_: Round,
    turns: Turns,
    beyond: Mapping[str, frozenset[str]],
    adapter_room: AdapterRoom,
    now: float,
) -> dict[int, AdmissionRequest]:
    """The requests for which the round looks for ways, by number, at most MOST_AT_ONCE. A request
    whose adapter has no room on any engine gets no promise in this round.
    """
    able = [
        number
        for number, targeted in with_targets.items()
        if not _is_deferred_long_prompt(targeted.deferral, targeted.query, round_, turns, now)
    ]
    able.sort(key=lambda number: with_targets[number].deferral.due_s)
    alternated = turns.alternate(able, lambda number: with_targets[number].query.tenant)
    requests = {}
    for number in alternated[:MOST_AT_ONCE]:
        targeted = with_targets[number]
        closed = beyond.get(targeted.query.targets.class_name)
        ways = targeted.ways.without_answers_on(closed) if closed else targeted.ways
        ways = adapter_room.ways_for(targeted.query.adapter, ways)
        if ways.exist:
            requests[number] = _admission_request(targeted, ways, round_, now)
    return requests


def _admission_request(
    targeted: _TargetedRequest, open_ways: Ways, round_: Round, now: float
) -> AdmissionRequest:
    query, state = targeted.query, round_.state
    ways = round_.fleet.least_of(open_ways, targeted.demand.cached_tokens)
    return AdmissionRequest(
        query=query,
        goal=targeted.goal,
        demand=targeted.demand,
        kv_tokens=query.prompt_tokens + state.expected_output_tokens(query),
        ways=rank(query, state, ways, targeted.goal, targeted.demand, round_.loads, now),
    )


def _answer(
    targeted: _TargetedRequest,
    request: AdmissionRequest | None,
    round_: Round,
    crowding_classes: frozenset[str],
    tried_s: float | None,
    now: float,
) -> Decision | Deferral:
    if request is not None and request.chosen is not None:
        grace = request.demand.grace_when_moved(request.chosen.gap_s)
        delivery_s = request.demand.delivery_s
        placement = answers.promised(
            request.query, "", request.chosen, request.goal, grace, delivery_s
        )
        return decision_of(placement, _first(request), request.goal, targeted.ways)
    never = answers.exceeds(targeted.idle, _with_slack(targeted, round_.state))
    crowds = not never and targeted.query.targets.class_name in crowding_classes
    way, latest_s = None, targeted.deferral.latest_s
    # Without a TTFT target a start gains nothing, and a pace cannot be kept without a promise.
    may_start = targeted.goal.ttft_s is not None or now >= latest_s
    tries = may_start and _tries_again(tried_s, latest_s, now)
    if tries and request is not None and request.query.targets.on_refuse is OnRefuse.BEST_EFFORT:
        way, tried_s = round_.way_without_promise(request), now
    left_out = crowds and targeted.goal.ttft_s is not None  # without one it waits for its turn
    if not (never or left_out or way or now >= latest_s):
        return replace(targeted.deferral, tried_s=tried_s)
    request = request or _admission_request(targeted, targeted.ways, round_, now)
    return _without_promise(targeted, request, round_, way, never=never, crowds=crowds)


def _with_slack(targeted: _TargetedRequest, state: ClusterState) -> Goal:
    """The goal, with the mean pace that keeps each deadline of an answer of the usual length where
    these count: a first token that comes early leaves its slack to the others.
    """
    goal, query, ttft_s = targeted.goal, targeted.query, targeted.idle.ttft_s
    later_tokens = state.expected_output_tokens(query) - 1
    by_deadlines = query.targets.pacing is Pacing.DEADLINES and later_tokens > 0
    if not by_deadlines or goal.ttft_s is None or goal.tpot_s is None or ttft_s is None:
        return goal
    early_s = max(0.0, goal.ttft_s - ttft_s)
    return replace(goal, tpot_s=goal.tpot_s + early_s / later_tokens)


def _tried_s(asked: PendingRequest) -> float | None:
    return None if asked.deferral is None else asked.deferral.tried_s


def _tries_again(tried_s: float | None, latest_s: float, now: float) -> bool:
    """Whether a request is tried without a promise: after it was late once, only after a share of
    the time that was left to it then.
    """
    return tried_s is None or now >= min(latest_s, tried_s + TRIED_AGAIN * (latest_s - tried_s))


def _only_waits_its_turn(asked: PendingRequest) -> bool:
    return asked.deferral is not None and asked.deferral.unpromised


def _runs_unpromised(decision: Decision | Deferral) -> bool:
    if isinstance(decision, Deferral):
        return False
    placement = decision.placement
    best_effort = placement.admission is Admission.BEST_EFFORT
    return placement.runs and (best_effort or placement.reason is Reason.NO_TARGET)


def _first(request: AdmissionRequest) -> list[Candidate]:
    """The request's ways, the chosen one first."""
    return sorted(request.ways, key=lambda way: way is not request.chosen)


def _without_promise(
    targeted: _TargetedRequest,
    request: AdmissionRequest,
    round_: Round,
    way: Candidate | None,
    *,
    never: bool,
    crowds: bool,
) -> Decision:
    """Best effort or a refusal, as the caller chose. `way`: one that would be in time without a
    promise; `never`: even idle engines miss the targets; `crowds`: its class is left out.
    """
    best = way or round_.foretell_leftover(request)
    reason = Reason.NEVER if never else request.reason
    state, name = round_.state, request.query.targets.class_name
    placement = answers.missed(
        request.query,
        "",
        best,
        request.goal,
        targeted.idle,
        state.numbers.retry_after_s,
        state.refusals.over_in_s(name, round_.now),
        reason=reason,
        crowds=crowds,
    )
    ordered = sorted(request.ways, key=lambda way: way is not best)
    return decision_of(placement, ordered, request.goal, targeted.ways)
