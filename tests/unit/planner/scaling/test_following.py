"""What the planner's state tells the scaler, and what is asked for from one answer to the next."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.scaling.fleet_size import FleetSize
from services.planner.scaling.numbers import ScalingNumbers
from services.planner.scaling.recent_demand import (
    ARRIVES,
    DUE,
    OUTPUT,
    PROMPT,
    Demands,
    RecentDemand,
)
from services.planner.scaling.replay import Replayed
from services.planner.scaling.scaler import Answer, Scaler
from services.planner.state.cluster import ClusterState
from shared.engines import Role
from shared.requests import Admission, OnRefuse, SloTargets
from tests.unit.planner.builders import (
    add,
    both_roles,
    make_cluster,
    make_engine,
    make_outcome,
    make_query,
    place,
)

NUMBERS = ScalingNumbers()
NONE = FleetSize(prefill=0, decode=0)
LATE_S = 1000.0


def demands_of(state: ClusterState) -> Demands:
    return state.recent_demand.since(-math.inf, state.lengths)


@pytest.mark.parametrize("on_refuse", OnRefuse)
def test_refused_requests_are_demand_like_admitted_ones(on_refuse: OnRefuse) -> None:
    state = make_cluster(make_engine())
    place(state, make_query("r0", targets=SloTargets(ttft_s=2.0)))

    targets = SloTargets(ttft_s=0.12, on_refuse=on_refuse)
    turned_away = place(state, make_query("r1", targets=targets, prompt_tokens=101), now=LATE_S)

    assert turned_away.placement.admission is not Admission.ADMITTED
    demands = demands_of(state)
    assert demands[:, PROMPT].tolist() == [100, 101]
    assert demands[:, DUE].tolist() == pytest.approx([2.0, 0.12], abs=0.01)  # less their delivery


def test_what_no_engine_could_ever_hold_is_no_demand() -> None:
    state = make_cluster(make_engine())

    place(state, make_query(prompt_tokens=5000))

    assert len(demands_of(state)) == 0


def test_a_request_that_asks_again_is_counted_once() -> None:
    state = make_cluster()

    for now in (1.0, 2.0, 3.0):
        place(state, make_query("r1", waited_s=now - 1.0), now=now)

    assert demands_of(state)[:, ARRIVES].tolist() == [0.0 + 1.0]


def test_answers_count_as_long_as_they_were_and_others_as_those_of_their_class() -> None:
    state = make_cluster(make_engine())
    for number, tokens in enumerate((10, 20, 30, 40)):
        decision = place(state, make_query(f"r{number}"))
        ended = make_outcome(decision, output_tokens=tokens, request_id=f"r{number}")
        state.settle(ended, LATE_S)
    for number in range(4, 44):
        place(state, make_query(f"r{number}"))

    outputs = demands_of(state)[:, OUTPUT]

    assert outputs[:4].tolist() == [10, 20, 30, 40]
    assert set(outputs[4:]) == {10, 20, 30, 40}
    assert outputs[4:].mean() == pytest.approx(25, abs=2)


@given(count=st.integers(1, 60), kept=st.integers(1, 20))
def test_only_the_latest_requests_are_kept(count: int, kept: int) -> None:
    state = make_cluster(make_engine())
    state.recent_demand = RecentDemand(kept)
    for number in range(count):
        place(state, make_query(f"r{number}", prompt_tokens=number + 1), now=float(number))

    demands = demands_of(state)

    assert demands[:, PROMPT].tolist() == list(range(max(1, count - kept + 1), count + 1))


# ---- from one answer to the next


def fed(
    scaler: Scaler, state: ClusterState, enough: FleetSize, *, from_s: float, until_s: float
) -> None:
    """Answers every 10 s: `enough` would do."""
    replayed = Replayed(kept=9, short_of_prefill=1, short_of_decode=0, never=0)
    for step in range(round((until_s - from_s) / 10.0)):
        now = from_s + 10.0 * step
        question = scaler.question(state, now)
        assert question is not None
        answer = Answer(needed=question.size, enough=enough, replayed=replayed)
        scaler.take(question, answer, now)


def test_before_any_engine_attached_nothing_is_said() -> None:
    scaler = Scaler(numbers=NUMBERS, started_at_s=0.0)

    assert scaler.question(make_cluster(), 10.0) is None
    assert scaler.size is None
    advice = scaler.advice(make_cluster(), NONE, 10.0)
    assert (advice.desired_prefill, advice.desired_decode) == (0, 1)


def test_a_planner_that_started_anew_asks_for_no_fewer_than_attach_or_start() -> None:
    state = make_cluster(*both_roles())
    scaler = Scaler(numbers=NUMBERS, started_at_s=0.0)
    small = FleetSize(prefill=1, decode=1)
    fed(scaler, state, small, from_s=10.0, until_s=30.0)
    for number in range(1, 4):
        add(state, make_engine(f"d{number}"))

    fed(scaler, state, small, from_s=30.0, until_s=100.0)
    advice = scaler.advice(state, FleetSize(prefill=1, decode=2), 100.0)

    assert scaler.size == FleetSize(prefill=1, decode=4)
    assert (advice.desired_prefill, advice.desired_decode) == (2, 6)
    assert (advice.present_prefill, advice.present_decode) == (1, 4)


def test_what_was_too_many_for_long_is_given_up() -> None:
    state = make_cluster(*both_roles(), make_engine("d1"), make_engine("d2"))
    scaler = Scaler(numbers=NUMBERS, started_at_s=0.0)

    fed(scaler, state, FleetSize(prefill=1, decode=1), from_s=10.0, until_s=600.0)

    advice = scaler.advice(state, NONE, 600.0)
    assert (advice.desired_prefill, advice.desired_decode) == (1, 1)
    assert (advice.present_prefill, advice.present_decode) == (1, 3)
    assert "90.0%: 1 were short of prefill" in advice.reason


def test_a_fleet_gets_no_prefill_engine_unless_it_has_or_starts_one() -> None:
    state = make_cluster(make_engine())
    scaler = Scaler(numbers=NUMBERS, started_at_s=0.0)
    fed(scaler, state, FleetSize(prefill=0, decode=1), from_s=10.0, until_s=LATE_S)

    alone = scaler.advice(state, NONE, LATE_S)
    starts = scaler.advice(state, FleetSize(prefill=2, decode=0), LATE_S)
    add(state, make_engine("p0", Role.PREFILL))
    fed(scaler, state, FleetSize(prefill=1, decode=1), from_s=LATE_S, until_s=LATE_S + 10.0)

    assert (alone.desired_prefill, starts.desired_prefill) == (0, 1)
    assert scaler.size == FleetSize(prefill=1, decode=1)


def test_a_draining_engine_is_not_present() -> None:
    state = make_cluster(*both_roles(), make_engine("d1"))
    state.engines["d1"].draining = True

    advice = Scaler(numbers=NUMBERS, started_at_s=0.0).advice(state, NONE, LATE_S)

    assert (advice.present_prefill, advice.present_decode) == (1, 1)
