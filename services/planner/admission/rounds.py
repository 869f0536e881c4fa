"""Decides all waiting requests together; the caller records the decisions."""

import math
from collections.abc import Mapping, Sequence
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
from services.planner.admission.pending import Deferral, PendingRequest
from services.planner.admission.placement import Decision, decide, decision_of, early_no
from services.planner.admission.placement_options import Ways
from services.planner.admission.promises import Round
from services.planner.admission.wishes import Wish
from services.planner.state.cluster import ClusterState
from services.planner.state.demand import Demand
from services.planner.state.engine_state import EngineState
from services.planner.state.tenants import Turns
from services.planner.tuning import LONGEST_TURN_S, MOST_AT_ONCE, PLACED_BEFORE_S
from shared.requests import Admission, OnRefuse, PlacementQuery, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One request with targets. `idle` are its zero-load times on the fastest engines."""

    query: PlacementQuery
    ways: Ways
    goal: Goal
    idle: Goal
    demand: Demand
    held: Deferral


def decide_round(
    asked: Sequence[PendingRequest], state: ClusterState, now: float
) -> list[Decision | Deferral | None]:
    """Returns, for each request in the order given, a decision, or what is known of it while it is
    held (None: not looked at yet).

    Promises are made for all requests of a tenant at once, one tenant after the other, and leave
    room for the next requests of the tenants before. Requests without targets are placed one per
    round: the others are held until the first one is recorded. Where several tenants share the
    fleet, this holds for best effort as well.
    """
    round_ = Round(state, now)
    turns = state.tenants.turns(((one.query.tenant, one.first_asked_at_s) for one in asked), now)
    decisions: list[Decision | Deferral | None] = [one.held for one in asked]
    next_ = _next_in_turn(asked, turns)
    looked_at = _looked_at(asked, round_, turns, now, next_)
    queries = {number: state.sessions.enrich(asked[number].query, now) for number in looked_at}
    cases = _cases(queries, round_, now)
    ready = [number for number in cases if not _only_waits_its_turn(asked[number])]
    left_out = frozenset() if turns.several else state.left_out(now)
    able = [n for n in ready if cases[n].query.targets.class_name not in left_out]
    wishes = _wishes({number: cases[number] for number in able}, round_, turns, now)
    for tenant, usual in turns.line:
        own = [wish for wish in wishes.values() if wish.query.tenant == tenant]
        if own:
            round_.promise(own)
        if usual is not None and turns.several:
            round_.set_aside(usual)
    somebody_placed = False
    for number in looked_at:
        query, case = queries[number], cases.get(number)
        if case is not None:
            decision: Decision | Deferral = _answer(case, wishes.get(number), round_, left_out, now)
        elif somebody_placed:
            continue
        else:
            decision = decide(query, state, round_.fleet.open_ways(query, now), now)
        if turns.several and _runs_unpromised(decision):
            others_first = somebody_placed or _comes_behind(asked, number, next_, turns)
            decision = _in_turn(query, decision, state, now, others_first=others_first)
        decisions[number] = decision
        somebody_placed |= _runs_unpromised(decision) and (case is None or turns.several)
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
        if one.held is None or number == next_ or now >= one.held.latest_s:
            must.append(number)
        elif not one.held.unpromised and not _steps_back(one.held, one.query, round_, turns, now):
            may.append((one.held.looked_s, number))

    def tenant_of(number: int) -> str:
        return asked[number].query.tenant

    in_turn = turns.alternate([number for _, number in sorted(may)], tenant_of)
    return turns.alternate(sorted(must + in_turn[: max(0, MOST_AT_ONCE - len(must))]), tenant_of)


def _steps_back(
    held: Deferral, query: PlacementQuery, round_: Round, turns: Turns, now: float
) -> bool:
    """Whether the request is a long prompt to be deferred; never one of the first tenant."""
    if now >= held.latest_s or turns.comes_first(query.tenant):
        return False
    return round_.state.long_prompt_deferral.holds_back(
        held.takes_s, held.due_s - now, round_.ahead_s
    )


def _cases(queries: Mapping[int, PlacementQuery], round_: Round, now: float) -> dict[int, _Case]:
    """The requests with targets that may be promised."""
    asking = {n: query for n, query in queries.items() if not query.targets.asks_for_nothing}
    cases = {number: _case(query, round_, now) for number, query in asking.items()}
    return {number: case for number, case in cases.items() if case is not None}


def _case(query: PlacementQuery, round_: Round, now: float) -> _Case | None:
    """The request's case; None where it cannot run, or no step times are known."""
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
    held = Deferral(
        takes_s=state.prompt_s(demand.least_to_compute),
        due_s=demand.due_s,
        latest_s=_latest_s(demand, goal, idle, state),
        looked_s=now,
    )
    return _Case(query=query, ways=ways, goal=goal, idle=idle, demand=demand, held=held)


def _latest_s(demand: Demand, goal: Goal, idle: Goal, state: ClusterState) -> float:
    """The last time at which a request placed on an idle engine is in time, with a little slack."""
    if goal.ttft_s is None or idle.ttft_s is None:
        return demand.arrived_at_s + state.numbers.patience_s
    return demand.due_s - idle.ttft_s - state.client_latency.both_s - PLACED_BEFORE_S


def _wishes(cases: Mapping[int, _Case], round_: Round, turns: Turns, now: float) -> dict[int, Wish]:
    """The requests for which the round looks for ways, by number, at most MOST_AT_ONCE."""
    able = [
        number
        for number, case in cases.items()
        if not _steps_back(case.held, case.query, round_, turns, now)
    ]
    able.sort(key=lambda number: cases[number].held.due_s)
    in_turn = turns.alternate(able, lambda number: cases[number].query.tenant)
    return {number: _wish(cases[number], round_, now) for number in in_turn[:MOST_AT_ONCE]}


def _wish(case: _Case, round_: Round, now: float) -> Wish:
    query, state = case.query, round_.state
    ways = round_.fleet.least_of(case.ways, case.demand.cached_tokens)
    return Wish(
        query=query,
        goal=case.goal,
        demand=case.demand,
        kv_tokens=query.prompt_tokens + state.expected_output_tokens(query),
        ways=rank(query, state, ways, case.goal, case.demand, now),
    )


def _answer(
    case: _Case, wish: Wish | None, round_: Round, left_out: frozenset[str], now: float
) -> Decision | Deferral:
    if wish is not None and wish.chosen is not None:
        grace = wish.demand.grace_when_moved(wish.chosen.transfer_s)
        delivery_s = wish.demand.delivery_s
        placement = answers.promised(wish.query, "", wish.chosen, wish.goal, grace, delivery_s)
        return decision_of(placement, _first(wish), wish.goal, case.ways)
    never = answers.exceeds(case.idle, case.goal)
    crowds = not never and case.query.targets.class_name in left_out
    way = None
    if wish is not None and wish.query.targets.on_refuse is OnRefuse.BEST_EFFORT:
        way = round_.way_without_promise(wish)
    if not (never or crowds or way or now >= case.held.latest_s):
        return case.held
    wish = wish or _wish(case, round_, now)
    return _without_promise(case, wish, round_, way, never=never, crowds=crowds)


def _only_waits_its_turn(asked: PendingRequest) -> bool:
    return asked.held is not None and asked.held.unpromised


def _runs_unpromised(decision: Decision | Deferral) -> bool:
    if isinstance(decision, Deferral):
        return False
    placement = decision.placement
    best_effort = placement.admission is Admission.BEST_EFFORT
    return placement.runs and (best_effort or placement.reason is Reason.NO_TARGET)


def _in_turn(
    query: PlacementQuery,
    decision: Decision | Deferral,
    state: ClusterState,
    now: float,
    *,
    others_first: bool,
) -> Decision | Deferral:
    """The decision, or a hold where another request is to run first or its engine is backed up.
    Requests beyond a tenant's share are held as long as the gateway waits.
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


def _first(wish: Wish) -> list[Candidate]:
    """The wish's ways, the chosen one first."""
    return sorted(wish.ways, key=lambda way: way is not wish.chosen)


def _without_promise(
    case: _Case, wish: Wish, round_: Round, way: Candidate | None, *, never: bool, crowds: bool
) -> Decision:
    """Best effort or a refusal, as the caller chose. `way`: one that would be in time without a
    promise; `never`: even idle engines miss the targets; `crowds`: its class is left out.
    """
    best = way or round_.foretell_leftover(wish)
    reason = Reason.NEVER if never else wish.reason
    state, name = round_.state, wish.query.targets.class_name
    placement = answers.missed(
        wish.query,
        "",
        best,
        wish.goal,
        case.idle,
        state.numbers.retry_after_s,
        state.refusals.over_in_s(name, round_.now),
        reason=reason,
        crowds=crowds,
    )
    ordered = sorted(wish.ways, key=lambda way: way is not best)
    return decision_of(placement, ordered, wish.goal, case.ways)
