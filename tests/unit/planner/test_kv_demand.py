"""Where KV is short, requests that cost more of it leave room to those that cost less."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.admission.pending import PendingRequest
from services.planner.admission.placement import Decision
from services.planner.admission.promises import Round
from services.planner.admission.rounds import decide_round
from services.planner.estimators.kv_demand import KvDemand, KvFleet, KvRanks
from services.planner.estimators.survival import Survival
from services.planner.state.cluster import ClusterState
from services.planner.tuning import MIX_MEMORY_S
from shared.engines import Role
from shared.requests import Admission, Placement, Reason, SloTargets
from shared.scheduling.rows import new_row
from tests.unit.planner.builders import (
    LONG_AFTER_S,
    make_cluster,
    make_engine,
    make_query,
    make_report,
)

STEP_S = 0.02
LONG, SHORT = 600, 40  # tokens of answers


def answers_of(**tokens: int) -> Survival:
    answers = Survival()
    for name, mean in tokens.items():
        for key in range(20):
            answers.ends(name, float(key), mean)
    return answers


ANSWERS = answers_of(long=LONG, short=SHORT)


def demand_of(seconds: float, **per_s: float) -> KvDemand:
    """Requests of 400 tokens each, of these classes and rates, until LONG_AFTER_S."""
    demand = KvDemand()
    for name, rate in per_s.items():
        for number in range(round(seconds * rate)):
            demand.asked(name, 400, 1.0, 1.0, LONG_AFTER_S - seconds + number / rate)
    return demand


def fleet(kv_tokens: float, engines: int = 1) -> KvFleet:
    return KvFleet(engines=engines, kv_tokens=kv_tokens, step_s=STEP_S)


def held_tokens(tokens: int, per_s: float) -> float:
    """By Little's law: what requests with answers of so many tokens hold on average."""
    return per_s * STEP_S * sum(400 + place for place in range(tokens))


@pytest.mark.parametrize("engines", [1, 4])
def test_shares_are_those_of_requests_that_come_and_end_as_often(engines: int) -> None:
    needed = held_tokens(LONG, 1.0) + held_tokens(SHORT, 2.0)
    demand = demand_of(5 * MIX_MEMORY_S, long=1.0, short=2.0)

    ranks = demand.ranks(fleet(needed / engines / 1.1, engines), ANSWERS, LONG_AFTER_S)

    assert ranks.shares[-1] == pytest.approx(1.1, rel=0.05)
    long_cost = float(ranks.costs[-1])
    assert ranks.share_before(long_cost) == pytest.approx(
        1.1 * held_tokens(SHORT, 2.0) / needed, rel=0.1
    )
    assert ranks.share_before(math.inf) == 1.0


def test_while_all_fit_no_request_leaves_anything() -> None:
    needed = held_tokens(LONG, 1.0) + held_tokens(SHORT, 2.0)
    demand = demand_of(5 * MIX_MEMORY_S, long=1.0, short=2.0)

    assert not len(demand.ranks(fleet(1.2 * needed), ANSWERS, LONG_AFTER_S).costs)


@given(lasted_s=st.floats(0, 1e4), tokens=st.floats(0, 1e4), gain=st.floats(1, 5))
def test_a_shortage_counts_by_the_chance_that_it_lasts(
    lasted_s: float, tokens: float, gain: float
) -> None:
    ranks = KvRanks(step_s=STEP_S, lasted_s=lasted_s)
    runs_s = tokens / gain * STEP_S

    assert 0.0 <= ranks.expected_cost(1.0, tokens, gain) <= 1.0
    if runs_s > 0:
        same = KvRanks(step_s=STEP_S, lasted_s=runs_s)
        assert same.expected_cost(1.0, tokens, gain) == pytest.approx(0.5)
        assert KvRanks(step_s=STEP_S).expected_cost(1.0, tokens, gain) == 0.0


def test_a_shortage_lasts_from_its_first_sight_to_its_last() -> None:
    demand = demand_of(40.0, long=1.0)
    scarce, ample = fleet(held_tokens(LONG, 0.5)), fleet(held_tokens(LONG, 5.0))

    def lasted_s(at: KvFleet, after_s: float) -> float:
        return demand.ranks(at, ANSWERS, LONG_AFTER_S + after_s).lasted_s

    assert [lasted_s(scarce, 0.0), lasted_s(scarce, 2.0)] == [0.0, 2.0]
    assert [lasted_s(ample, 2.5), lasted_s(scarce, 3.0), lasted_s(scarce, 4.0)] == [0.0, 0.0, 1.0]


def test_classes_that_are_not_kept_any_more_ask_for_nothing() -> None:
    demand = demand_of(40.0, long=2.0)
    scarce = fleet(held_tokens(LONG, 1.0))
    assert len(demand.ranks(scarce, ANSWERS, LONG_AFTER_S).costs)
    answers = Survival()
    for number in range(300):
        name = f"class {number}"
        answers.ends(name, 0.0, 1)
        demand.asked(name, 1, 1.0, 1.0, LONG_AFTER_S)

    assert not len(demand.ranks(scarce, answers, LONG_AFTER_S).costs)


def short_of_kv(*roles: Role) -> ClusterState:
    """A fleet that has been asked for twice its KV for a minute, half of that by short answers."""
    engines = [
        make_engine(f"e{number}", role, max_running_requests=64, max_model_len_tokens=4096)
        for number, role in enumerate(roles)
    ]
    state = make_cluster(*engines)
    state.survival = ANSWERS
    decoding = new_row(tokens=101, computed=100, produced=1, left=9, kind=1.0)
    for engine in state.engines.values():
        engine.rows = np.array([decoding])
    for number in range(600):
        now = LONG_AFTER_S - 60.0 + number / 10
        state.kv_demand.asked("long", 400, 1.0, 1.0, now)
        for _ in range(15):
            state.kv_demand.asked("short", 400, 1.0, 1.0, now)
        state.kv_ranks(now)
    return state


def placed(state: ClusterState, name: str) -> Placement:
    """How one request of a class that may wait is placed."""
    targets = SloTargets(class_name=name, ttft_s=600.0, tpot_s=5.0)
    query = make_query(targets=targets, prompt_tokens=400, max_output_tokens=1000)
    asked = PendingRequest(query=query, arrived_at_s=LONG_AFTER_S, first_asked_at_s=LONG_AFTER_S)
    (decision,) = decide_round([asked], state, LONG_AFTER_S)
    assert isinstance(decision, Decision)
    return decision.placement


def test_where_kv_is_short_a_long_answer_is_promised_nothing_and_a_short_one_is() -> None:
    state = short_of_kv(Role.DECODE)

    assert placed(state, "short").admission is Admission.ADMITTED
    long_one = placed(state, "long")
    assert (long_one.admission, long_one.reason) == (Admission.BEST_EFFORT, Reason.MEMORY)


def test_a_prefill_engine_leaves_no_room_for_it() -> None:
    """Its requests hold KV for a moment."""
    state = short_of_kv(Role.DECODE, Role.PREFILL)
    round_ = Round(state, state.kv_ranks(LONG_AFTER_S), LONG_AFTER_S)
    row = new_row(tokens=400, left=1000, due_s=LONG_AFTER_S + 600.0, tpot_s=5.0)

    decode, prefill = (round_.what_if(state.engines[name]) for name in ("e0", "e1"))

    assert decode is not None
    assert prefill is not None
    refused = decode.try_one(row, "long")
    assert refused.leaves_kv
    assert "leaves its room" in refused.obstacle("e0")
    assert prefill.try_one(row, "long").kept


def test_requests_of_several_tenants_leave_each_other_nothing() -> None:
    state = short_of_kv(Role.DECODE)
    state.tenants.turns((("other", LONG_AFTER_S),), LONG_AFTER_S)

    assert placed(state, "long").admission is Admission.ADMITTED


def test_ranks_are_made_from_what_engines_do_now() -> None:
    state = short_of_kv(Role.DECODE)
    assert len(state.kv_ranks(LONG_AFTER_S).costs)
    for engine in state.engines.values():
        engine.observe(make_report(), LONG_AFTER_S)

    assert not len(state.kv_ranks(LONG_AFTER_S + 1.0).costs)
