"""All requests that wait, decided together. Pure; the caller takes the decisions into its books."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.planner import answers
from services.planner.candidates import (
    Candidate,
    Goal,
    best_idle_tpot_s,
    best_idle_ttft_s,
    goal_of,
    rank,
)
from services.planner.demand import Demand
from services.planner.placement import Decision, decide, decision_of, early_no
from services.planner.promises import Round
from services.planner.state import ClusterState
from services.planner.ways import Ways
from services.planner.wishes import Wish
from shared.requests import PlacementQuery, Reason

_MOST_AT_ONCE = 12  # wishes looked at in one round; the others wait for the next ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Of a request that waits, what need not be found out again: its prompt takes `takes_s` of an
    engine and is due at `due_s`; placed after `latest_s` it would be late on an idle engine.
    `looked_s` is when a way was last looked for.
    """

    takes_s: float
    due_s: float
    latest_s: float
    looked_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that waits for its decision. Times are on the planner's clock.

    `query.waited_s` holds for the moment of the round; `arrived_at_s` is when the request came to
    its gateway, `first_asked_at_s` when the planner first heard of it. `held` is what the round
    before answered. `decision_id` is that of its record so far: one that is put off and asks again
    has one record.
    """

    query: PlacementQuery
    arrived_at_s: float
    first_asked_at_s: float
    held: Held | None = None
    decision_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One request that asks for something. `idle` is what the best engine would give it if it had
    nothing else to do.
    """

    query: PlacementQuery
    ways: Ways
    goal: Goal
    idle: Goal
    demand: Demand
    held: Held


def decide_round(
    asked: Sequence[Asked], state: ClusterState, now: float
) -> list[Decision | Held | None]:
    """A decision for each, in the order given; or what is to be held for the next round, where it
    was looked at.

    Promises are made for all of them at once. What asks for nothing is placed one at a time: of
    several, the first is decided and the others are held until it is in the books.
    """
    round_ = Round(state, now)
    decisions: list[Decision | Held | None] = [one.held for one in asked]
    cases: dict[int, _Case] = {}
    somebody_placed = False
    for number in _looked_at(asked, round_, now):
        query = state.sessions.enrich(asked[number].query, now)
        case = None if query.targets.asks_for_nothing else _case(query, round_, now)
        if case is not None:
            cases[number] = case
        elif not somebody_placed:
            decision = decide(query, state, round_.fleet.open_ways(query, now), now)
            decisions[number], somebody_placed = decision, decision.placement.runs
    wishes = _wishes(cases, round_, now)
    round_.promise(list(wishes.values()))
    for number, case in cases.items():
        decisions[number] = _answer(case, wishes.get(number), round_, now)
    return decisions


def _looked_at(asked: Sequence[Asked], round_: Round, now: float) -> list[int]:
    """Whoever is new or has no more time to wait; of the others those that were not looked at for
    the longest, but for those that let others go first.
    """
    must, may = [], []
    for number, one in enumerate(asked):
        if one.held is None or now >= one.held.latest_s:
            must.append(number)
        elif not _steps_back(one.held, round_, now):
            may.append((one.held.looked_s, number))
    may.sort()
    return sorted(must + [number for _, number in may[: max(0, _MOST_AT_ONCE - len(must))]])


def _steps_back(held: Held, round_: Round, now: float) -> bool:
    """Whether it lets others go first, and still can."""
    holds_back = round_.state.restraint.holds_back
    return now < held.latest_s and holds_back(held.takes_s, held.due_s - now, round_.ahead_s)


def _case(query: PlacementQuery, round_: Round, now: float) -> _Case | None:
    """None for what needs no promise to be answered: it cannot run, or nothing is known."""
    state = round_.state
    ways = round_.fleet.open_ways(query, now)
    if state.any_table is None or early_no(query, state, ways, now) is not None:
        return None
    idle = Goal(
        ttft_s=best_idle_ttft_s(query, state, ways), tpot_s=best_idle_tpot_s(query, state, ways)
    )
    goal = goal_of(query, state, ways)
    ttft_s = math.inf if goal.ttft_s is None else goal.ttft_s
    demand = state.demand(query, ttft_s, now)
    held = Held(
        takes_s=state.prompt_s(demand.prompt_tokens - demand.cached_tokens),
        due_s=demand.due_s,
        latest_s=_latest_s(demand, goal, idle, state),
        looked_s=now,
    )
    return _Case(query=query, ways=ways, goal=goal, idle=idle, demand=demand, held=held)


def _latest_s(demand: Demand, goal: Goal, idle: Goal, state: ClusterState) -> float:
    """Until when an engine that becomes free could still be in time."""
    if goal.ttft_s is None or idle.ttft_s is None:
        return demand.arrived_at_s + state.numbers.patience_s
    return demand.due_s - idle.ttft_s - state.delivery.likely_s


def _wishes(cases: Mapping[int, _Case], round_: Round, now: float) -> dict[int, Wish]:
    """Those that are looked for a way for, by their numbers."""
    able = [number for number, case in cases.items() if not _steps_back(case.held, round_, now)]
    able.sort(key=lambda number: cases[number].held.due_s)
    return {number: _wish(cases[number], round_, now) for number in able[:_MOST_AT_ONCE]}


def _wish(case: _Case, round_: Round, now: float) -> Wish:
    query, state = case.query, round_.state
    ways = round_.fleet.least_of(case.ways, home=case.demand.home)
    return Wish(
        query=query,
        goal=case.goal,
        demand=case.demand,
        kv_tokens=query.prompt_tokens + state.expected_output_tokens(query),
        ways=rank(query, state, ways, case.goal, now),
    )


def _answer(case: _Case, wish: Wish | None, round_: Round, now: float) -> Decision | Held:
    if wish is not None and wish.chosen is not None:
        grace = wish.demand.grace_when_moved(wish.chosen.transfer_s)
        delivery_s = wish.demand.delivery_s
        placement = answers.promised(wish.query, "", wish.chosen, wish.goal, grace, delivery_s)
        return decision_of(placement, _first(wish), wish.goal, case.ways)
    never = answers.exceeds(case.idle, case.goal)
    if not never and now < case.held.latest_s:
        return case.held
    return _without_promise(case, wish or _wish(case, round_, now), round_, never=never)


def _first(wish: Wish) -> list[Candidate]:
    """The chosen way before the others."""
    return sorted(wish.ways, key=lambda way: way is not wish.chosen)


def _without_promise(case: _Case, wish: Wish, round_: Round, *, never: bool) -> Decision:
    """Best effort or a no, as the caller chose, with what could be had now."""
    best = round_.foretell_leftover(wish)
    reason = Reason.NEVER if never else wish.reason
    retry_after_s = round_.state.numbers.retry_after_s
    placement = answers.missed(
        wish.query, "", best, wish.goal, case.idle, retry_after_s, reason=reason
    )
    ordered = sorted(wish.ways, key=lambda way: way is not best)
    return decision_of(placement, ordered, wish.goal, case.ways)
