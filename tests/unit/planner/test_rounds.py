from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.planner.admission import feasibility
from services.planner.admission.pending import Deferral, PendingRequest
from services.planner.admission.placement import Decision
from services.planner.admission.rounds import decide_round
from services.planner.state.cluster import ClusterState
from services.planner.state.turnover import usual_step_s
from services.planner.tuning import TELLING_SURVIVALS
from shared.engines import EngineDescription, Role
from shared.requests import Admission, OnRefuse, Pacing, PlacementMode, Reason, SloTargets
from shared.scheduling.rows import new_row
from tests.unit.planner.builders import (
    LONG_AFTER_S,
    commit,
    make_cluster,
    make_engine,
    make_query,
    make_report,
)
from tests.unit.planner.world import lives_at

TARGETS = SloTargets(ttft_s=20.0, tpot_s=0.5, on_refuse=OnRefuse.REFUSE)


def ask(name: str, **changed: Any) -> PendingRequest:
    query = make_query(name, **({"targets": TARGETS} | changed))
    return PendingRequest(query=query, arrived_at_s=LONG_AFTER_S, first_asked_at_s=LONG_AFTER_S)


def full(first: PendingRequest | None = None, *others: EngineDescription) -> ClusterState:
    """One engine with one place, which is taken, and others."""
    state = make_cluster(make_engine(max_running_requests=1), *others)
    first = first or ask("first")
    (decision,) = decide_round([first], state, LONG_AFTER_S)
    assert isinstance(decision, Decision)
    assert decision.placement.admission is Admission.ADMITTED
    commit(state, first.query, decision, LONG_AFTER_S)
    return state


def held_after(
    asked: list[PendingRequest], state: ClusterState, now: float
) -> list[PendingRequest]:
    found = decide_round(asked, state, now)
    assert all(isinstance(one, Deferral) for one in found)
    return [
        replace(one, deferral=held)
        for one, held in zip(asked, found, strict=True)
        if isinstance(held, Deferral)
    ]


def looked_s(one: PendingRequest) -> float:
    assert one.deferral is not None
    return one.deferral.looked_s


def test_of_many_that_are_held_all_are_looked_at_in_turn_and_twelve_at_once() -> None:
    state = full()
    asked = held_after([ask(f"r{i}") for i in range(40)], state, LONG_AFTER_S)
    looked: list[set[str]] = []
    for number in (1, 2, 3, 4):
        now = LONG_AFTER_S + number
        asked = held_after(asked, state, now)
        looked.append({one.query.request_id for one in asked if looked_s(one) == now})

    assert [len(one) for one in looked] == [12, 12, 12, 12]
    assert len(set.union(*looked)) == 40


def test_a_request_without_time_left_is_answered_however_many_wait() -> None:
    state = full()
    asked = held_after([ask(f"r{i}") for i in range(40)], state, LONG_AFTER_S)
    assert all(one.deferral and one.deferral.latest_s < LONG_AFTER_S + 20 for one in asked)

    found = decide_round(asked, state, LONG_AFTER_S + 20)

    admissions = [one.placement.admission for one in found if isinstance(one, Decision)]
    assert admissions == [Admission.REFUSED] * 40


def tries_of(asked: PendingRequest, state: ClusterState, every_s: float, until_s: float) -> int:
    """In how many rounds the request was tried without a promise until `until_s` before its end."""
    tried: set[float] = set()
    asked, now = held_after([asked], state, LONG_AFTER_S)[0], LONG_AFTER_S
    assert asked.deferral is not None
    while now < asked.deferral.latest_s - until_s:
        now += every_s
        asked = held_after([asked], state, now)[0]
        assert asked.deferral is not None
        assert asked.deferral.tried_s is not None
        tried.add(asked.deferral.tried_s)
    return len(tried)


def test_a_request_is_tried_without_a_promise_by_the_time_left_to_it_not_in_every_round() -> None:
    """Each try leaves nine tenths of the time that was left at the one before."""
    targets = replace(TARGETS, on_refuse=OnRefuse.BEST_EFFORT)

    state = full(ask("first", max_output_tokens=1900))
    tries = tries_of(ask("r", targets=targets), state, every_s=0.25, until_s=2.0)

    assert 12 <= tries <= 22  # ln(20 / 2) / ln(10 / 9) = 22, of 70 rounds


def test_no_prefill_engine_is_simulated_for_an_answer_that_has_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefill = make_engine("p0", Role.PREFILL)
    state = full(ask("first", forced_way=PlacementMode.COLOCATED), prefill)
    monkeypatch.setattr(feasibility, "simulate", lambda *_, **__: pytest.fail("simulated"))

    apart = ask("next", forced_way=PlacementMode.DISAGGREGATED)
    (found,) = decide_round([apart], state, LONG_AFTER_S)

    assert isinstance(found, Deferral)


def test_without_a_ttft_target_a_request_waits_for_its_pace_as_long_as_patience_lasts() -> None:
    state = full()
    best_effort = SloTargets(tpot_s=0.5, on_refuse=OnRefuse.BEST_EFFORT)
    asked = [ask("r", targets=best_effort)]
    ends_s = LONG_AFTER_S + state.numbers.patience_s

    for now in (LONG_AFTER_S, LONG_AFTER_S + 1, ends_s - 0.1):
        asked = held_after(asked, state, now)
    (found,) = decide_round(asked, state, ends_s)

    assert isinstance(found, Decision)
    assert found.placement.admission is Admission.BEST_EFFORT


@pytest.mark.parametrize(("ttft_s", "waits"), [(None, True), (20.0, False)])
def test_of_a_class_that_crowds_others_only_what_may_start_at_any_time_waits(
    monkeypatch: pytest.MonkeyPatch, ttft_s: float | None, waits: bool
) -> None:
    def crowding(_: ClusterState, now: float) -> frozenset[str]:
        return frozenset({"tight"} if now < LONG_AFTER_S + 5 else ())

    monkeypatch.setattr(ClusterState, "crowding_classes", crowding)
    targets = replace(TARGETS, class_name="tight", ttft_s=ttft_s, on_refuse=OnRefuse.BEST_EFFORT)
    asked, state = ask("r", targets=targets), make_cluster(make_engine())

    (first,) = decide_round([asked], state, LONG_AFTER_S)
    (later,) = decide_round([asked], state, LONG_AFTER_S + 5)

    assert isinstance(first, Deferral) is waits
    assert isinstance(later, Decision)
    assert later.placement.admission is Admission.ADMITTED


@pytest.mark.parametrize(
    ("ttft_s", "pacing", "never"),
    [
        (2.0, Pacing.MEAN, True),
        (0.3, Pacing.DEADLINES, True),
        (2.0, Pacing.DEADLINES, False),  # 50 tokens in 2.2 s; an idle engine takes 0.6
    ],
)
def test_a_first_token_before_its_deadline_leaves_time_to_a_pace_that_no_engine_reaches(
    ttft_s: float, pacing: Pacing, never: bool
) -> None:
    targets = SloTargets(ttft_s=ttft_s, tpot_s=0.005, pacing=pacing, on_refuse=OnRefuse.REFUSE)

    (found,) = decide_round([ask("r", targets=targets)], make_cluster(make_engine()), LONG_AFTER_S)

    refused = isinstance(found, Decision) and found.placement.reason is Reason.NEVER
    assert refused is never


def test_a_long_prompt_is_deferred_until_its_last_moment() -> None:
    state = make_cluster(make_engine(kv_blocks=4000, max_running_requests=64))
    for number in range(12):
        cheap = ask(f"cheap-{number}", prompt_tokens=100)
        (decision,) = decide_round([cheap], state, LONG_AFTER_S)
        assert isinstance(decision, Decision)
        commit(state, cheap.query, decision, LONG_AFTER_S)
    dear = ask("dear", prompt_tokens=1000)

    held, also_cheap = decide_round([dear, ask("one-more")], state, LONG_AFTER_S)

    assert isinstance(also_cheap, Decision)
    assert isinstance(held, Deferral)
    last_moment = held.due_s - 1.3 * held.takes_s - 0.1
    waiting = replace(dear, deferral=held)
    for now, is_looked_at in ((last_moment - 1.0, False), (last_moment + 0.01, True)):
        (answer,) = decide_round([waiting], state, now)
        assert isinstance(answer, Deferral)
        assert (answer.looked_s == now) == is_looked_at


def test_best_effort_stays_on_one_engine_where_it_can() -> None:
    engines = [make_engine(f"d{number}") for number in range(3)]
    state = make_cluster(*engines)
    targets = SloTargets(ttft_s=0.001, tpot_s=0.5, on_refuse=OnRefuse.BEST_EFFORT)

    (decision,) = decide_round([ask("r", targets=targets)], state, LONG_AFTER_S)

    assert isinstance(decision, Decision)
    assert decision.placement.admission is Admission.BEST_EFFORT
    assert decision.placement.prefill is None


def test_no_kv_moves_between_engines_that_both_decode_while_one_has_room() -> None:
    state = make_cluster(make_engine("d0"), make_engine("d1"))
    computing = new_row(tokens=1500, left=10, due_s=LONG_AFTER_S + 20, tpot_s=0.5)
    decoding = new_row(
        tokens=50, computed=49, produced=2, left=10, due_s=LONG_AFTER_S + 0.5, tpot_s=0.5
    )
    state.engines["d0"].rows = computing[None]
    state.engines["d0"].report = make_report(waiting=1, queued_prefill_tokens=1500)
    state.engines["d1"].rows = np.vstack([decoding] * 4)

    (decision,) = decide_round([ask("r")], state, LONG_AFTER_S)

    assert isinstance(decision, Decision)
    assert decision.chosen is not None
    assert (decision.chosen.prefill, decision.chosen.decode) == (None, "d1")


@pytest.mark.parametrize("on_refuse", list(OnRefuse))
def test_what_would_be_in_time_without_a_promise_is_not_held_for_one(on_refuse: OnRefuse) -> None:
    """Both paces are hardly longer than an idle step, which takes 11 ms."""
    state = make_cluster(make_engine())
    running = new_row(
        tokens=50, computed=49, produced=5, left=400, due_s=LONG_AFTER_S + 0.0112, tpot_s=0.0112
    )
    state.engines["d0"].rows = running[None]
    state.engines["d0"].report = make_report(running=1)
    targets = SloTargets(ttft_s=8.0, tpot_s=0.0115, on_refuse=on_refuse)

    (found,) = decide_round([ask("r", prompt_tokens=400, targets=targets)], state, LONG_AFTER_S)

    assert isinstance(found, Decision) == (on_refuse is OnRefuse.BEST_EFFORT)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("steps_in_a_pace", [1.2, 3.0])
def test_without_room_by_known_lengths_only_a_pace_that_outlasts_a_preemption_runs_unpromised(
    steps_in_a_pace: float, known: bool
) -> None:
    state = make_cluster(make_engine(max_running_requests=1))
    for key in range(TELLING_SURVIVALS if known else 0):
        state.survival.ends(SloTargets().class_name, float(key), 400)
    engine = state.engines["d0"]
    running = new_row(
        tokens=50, computed=49, produced=45, left=400, due_s=LONG_AFTER_S + 1.0, tpot_s=1.0
    )
    engine.rows = running[None]
    engine.report = make_report(running=1)
    assert engine.table is not None
    pace_s = steps_in_a_pace * usual_step_s(engine.rows, engine.table)
    targets = SloTargets(ttft_s=8.0, tpot_s=pace_s, on_refuse=OnRefuse.BEST_EFFORT)

    (found,) = decide_round([ask("r", targets=targets)], state, LONG_AFTER_S)

    assert isinstance(found, Decision) == (steps_in_a_pace > 2 or not known)


@pytest.mark.parametrize("seed", [10, 25, 31, 38])
@pytest.mark.parametrize("requests", [8, 12])
def test_the_program_displaces_nobody_for_what_is_worth_no_more(requests: int, seed: int) -> None:
    """More requests of one value at once than an engine can promise. Times are foretold anew only
    where promises change.
    """

    def promised(*, admission_dp: bool) -> dict[str, float | None]:
        state = make_cluster(make_engine(), admission_dp=admission_dp)
        lives = lives_at(5000.0, requests, seed)
        queries = [replace(life.query, waited_s=0.0) for life in lives]
        pending = [
            PendingRequest(query=one, arrived_at_s=LONG_AFTER_S, first_asked_at_s=LONG_AFTER_S)
            for one in queries
        ]
        found = decide_round(pending, state, LONG_AFTER_S)
        return {
            query.request_id: answer.chosen.ttft_s
            for query, answer in zip(queries, found, strict=True)
            if isinstance(answer, Decision)
            and answer.chosen is not None
            and answer.placement.admission is Admission.ADMITTED
        }

    by_deadline, chosen = promised(admission_dp=False), promised(admission_dp=True)

    assert 0 < len(by_deadline) < requests
    if len(chosen) == len(by_deadline):
        assert chosen == by_deadline
    else:
        assert len(chosen) > len(by_deadline)
