"""All requests that wait, decided together. Pure; the caller takes the decisions into its books."""

import math
from collections.abc import Sequence
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
from services.planner.placement import Decision, decide, decision_of, early_no
from services.planner.promises import Round
from services.planner.state import ClusterState
from services.planner.ways import Ways, open_ways
from services.planner.wishes import Wish
from shared.requests import PlacementQuery, Reason

_MOST_AT_ONCE = 16  # wishes looked at in one round, those due first; the others wait for the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that waits for its decision. Times are on the planner's clock.

    `query.waited_s` holds for the moment of the round; `arrived_at_s` is when the request came to
    its gateway, `first_asked_at_s` when the planner first heard of it. `decision_id` is that of its
    record so far: one that is put off and asks again has one record.
    """

    query: PlacementQuery
    arrived_at_s: float
    first_asked_at_s: float
    decision_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One wish with what its answer needs."""

    wish: Wish
    ways: Ways


def decide_round(asked: Sequence[Asked], state: ClusterState, now: float) -> list[Decision | None]:
    """A decision for each, in the order given, or None for one that is to be held.

    Promises are made for all of them at once. What asks for nothing is placed one at a time: of
    several, the first is decided and the others are held until it is in the books.
    """
    round_ = Round(state, now)
    decisions: list[Decision | None] = [None] * len(asked)
    cases: dict[int, _Case] = {}
    somebody_placed = False
    for number, one in enumerate(asked):
        query = state.sessions.enrich(one.query, now)
        case = None if query.targets.asks_for_nothing else _case(query, state, round_, now)
        if case is not None:
            cases[number] = case
        elif not somebody_placed:
            decision = decide(query, state, now)
            decisions[number], somebody_placed = decision, decision.placement.runs
    urgent = sorted((case.wish for case in cases.values()), key=lambda wish: wish.demand.due_s)
    round_.promise(urgent[:_MOST_AT_ONCE])
    for number, case in cases.items():
        decisions[number] = _answer(case, state, round_)
    return decisions


def _case(query: PlacementQuery, state: ClusterState, round_: Round, now: float) -> _Case | None:
    """None for what needs no promise to be answered: it cannot run, or nothing is known."""
    ways = open_ways(query, state, now)
    if early_no(query, state, ways, now) is not None:
        return None
    goal = goal_of(query, state, ways)
    candidates = rank(query, state, ways, goal, now)
    if any(round_.bench(way.decode.engine) is None for way in candidates[:1]):
        return None
    ttft_s = math.inf if goal.ttft_s is None else goal.ttft_s
    wish = Wish(
        query=query,
        goal=goal,
        demand=state.demand(query, ttft_s, now),
        kv_tokens=query.prompt_tokens + state.expected_output_tokens(query),
        ways=candidates,
    )
    return _Case(wish=wish, ways=ways)


def _answer(case: _Case, state: ClusterState, round_: Round) -> Decision | None:
    wish = case.wish
    if wish.chosen is not None:
        grace = wish.demand.grace_when_moved(wish.chosen.transfer_s)
        placement = answers.promised(wish.query, "", wish.chosen, wish.goal, grace)
        return decision_of(placement, _first(wish), wish.goal, case.ways)
    idle = Goal(
        ttft_s=best_idle_ttft_s(wish.query, state, case.ways),
        tpot_s=best_idle_tpot_s(wish.query, state, case.ways),
    )
    never = answers.exceeds(idle, wish.goal)
    if not never and _can_wait(case, state, idle):
        return None
    return _without_promise(case, state, round_, idle, never=never)


def _first(wish: Wish) -> list[Candidate]:
    """The chosen way before the others."""
    return sorted(wish.ways, key=lambda way: way is not wish.chosen)


def _can_wait(case: _Case, state: ClusterState, idle: Goal) -> bool:
    """Whether an engine that becomes free could still be in time."""
    query, goal = case.wish.query, case.wish.goal
    if goal.ttft_s is None or idle.ttft_s is None:
        return query.waited_s < state.numbers.patience_s
    return query.waited_s + idle.ttft_s + state.delivery.likely_s < goal.ttft_s


def _without_promise(
    case: _Case, state: ClusterState, round_: Round, idle: Goal, *, never: bool
) -> Decision:
    """Best effort or a no, as the caller chose, with what could be had now."""
    wish = case.wish
    best = round_.foretell_leftover(wish)
    reason = Reason.NEVER if never else wish.reason
    placement = answers.missed(
        wish.query, "", best, wish.goal, idle, state.numbers.retry_after_s, reason=reason
    )
    ordered = sorted(wish.ways, key=lambda way: way is not best)
    return decision_of(placement, ordered, wish.goal, case.ways)
