"""The planner's state: which engines are attached, what is in flight and what is remembered."""

from dataclasses import replace

import pytest

from services.planner.state.cluster import ClusterState
from services.planner.state.engine_reservations import SEEN_LIMIT_S, UNSEEN_LIMIT_S
from services.planner.state.engine_state import EngineState
from services.planner.tuning import ARRIVAL_S
from shared.engines import KV_USED, KvTransfer, Role
from shared.requests import Admission, PlacementMode, SloTargets
from shared.scheduling.rows import AVAILABLE, DEADLINE, EXPIRED, KIND, to_wire
from tests.unit.planner.builders import (
    LONG_AFTER_S,
    add,
    both_roles,
    decide,
    held,
    make_cluster,
    make_engine,
    make_outcome,
    make_query,
    make_report,
    place,
)


def test_a_placed_request_counts_until_a_step_that_began_after_it_is_reported() -> None:
    state = make_cluster(make_engine())
    engine = state.engines["d0"]
    place(state, make_query(), now=100.0)
    step = make_report(running=1, duration_s=0.0, free_kv_blocks=250)

    engine.observe(make_report(duration_s=1.0, running=1), now=100.5)
    before = (engine.requests, engine.prefill_tokens_ahead)
    engine.observe(step, now=100.0 + state.client_latency.there_s + ARRIVAL_S)
    after = (engine.requests, engine.prefill_tokens_ahead)

    assert before == (2, 100)
    assert after == (1, 0)


def test_a_decode_engine_keeps_the_room_until_the_kv_is_due() -> None:
    state = make_cluster(*both_roles())
    place(state, make_query(forced_way=PlacementMode.DISAGGREGATED), now=100.0)
    idle = make_report()

    state.engines["d0"].observe(idle, now=100.1)
    kept = state.engines["d0"].unseen_kv_tokens
    state.engines["d0"].observe(idle, now=100.0 + 0.11 + 0.0052 + ARRIVAL_S + 0.001)

    assert kept == 150
    assert state.engines["d0"].unseen_kv_tokens == 0


def test_an_engine_that_says_a_request_is_finished_holds_it_no_longer() -> None:
    state = make_cluster(make_engine())
    place(state, make_query("r1"), now=100.0)
    place(state, make_query("r2"), now=100.0)

    state.engines["d0"].observe(
        make_report(running=1, finished=("r1", "never-heard-of")), now=101.0
    )

    assert [hold.request_id for hold in state.engines["d0"].seen.values()] == ["r2"]


def test_an_engine_that_reports_nothing_running_holds_nothing_that_it_has_seen() -> None:
    state = make_cluster(make_engine())
    place(state, make_query("r1"), now=100.0)

    state.engines["d0"].observe(make_report(running=0), now=101.0)

    assert held(state) == 0


def test_what_a_vanished_gateway_placed_is_forgotten_in_time() -> None:
    state = make_cluster(make_engine())
    engine = state.engines["d0"]
    place(state, make_query("seen"), now=0.0)
    engine.observe(make_report(running=1), now=1.0)
    place(state, make_query("unseen"), now=1.0)

    state.forget_old_holds(1.0 + UNSEEN_LIMIT_S)
    kept = len(engine.unseen)
    state.forget_old_holds(1.1 + UNSEEN_LIMIT_S)

    assert (kept, len(engine.unseen), len(engine.seen)) == (1, 0, 1)
    state.forget_old_holds(1.0 + SEEN_LIMIT_S)
    assert held(state) == 0


def test_the_same_process_on_a_new_stream_keeps_what_was_placed_on_it() -> None:
    state = make_cluster(make_engine())
    place(state, make_query(), now=100.0)
    state.engines["d0"].observe(make_report(running=1), now=100.0)

    add(state, make_engine())

    assert (len(state.engines["d0"].unseen), state.engines["d0"].view.running) == (1, 1)


def test_a_new_process_of_the_same_name_starts_empty_and_knows_its_speed() -> None:
    state = make_cluster(make_engine())
    state.observe(state.engines["d0"], [make_report(running=4)], now=1.0)
    place(state, make_query(), now=100.0)
    state.leave(state.engines["d0"], 101.0)

    engine = add(state, make_engine(engine_id="second"), cost=None)

    assert held(state) == 0
    assert engine.view.running == 0
    assert engine.table is not None


def fall_silent(state: ClusterState) -> None:
    """Nothing is heard of any engine for the time that it takes to give one up."""
    for _ in range(100):
        state.tick(0.0)


def test_a_second_engine_of_one_name_is_refused_while_the_first_is_heard() -> None:
    state = make_cluster(make_engine())

    engine, refusal = state.register(make_engine(engine_id="second"))

    assert engine is None
    assert "another engine of that name serves at" in refusal
    assert state.engines["d0"].description.engine_id != "second"


def test_an_engine_whose_name_was_taken_over_never_gets_it_back() -> None:
    state = make_cluster(make_engine())
    first = state.engines["d0"].description
    fall_silent(state)
    add(state, make_engine(engine_id="second"))
    fall_silent(state)

    engine, refusal = state.register(first)

    assert engine is None
    assert "has taken over its name" in refusal
    assert state.was_replaced(first.engine_id)


def test_a_silent_engine_gets_nothing_new_until_it_is_heard() -> None:
    state = make_cluster(make_engine("d0"), make_engine("d1"))
    for _ in range(100):
        state.tick(0.0)
        state.engines["d1"].silent_ticks = 0
    while_silent = [place(state, make_query(f"r{at}")).placement.decode for at in range(4)]

    state.engines["d0"].silent_ticks = 0

    assert {one.name for one in while_silent if one} == {"d1"}
    assert [one.name for one in state.serving()] == ["d0", "d1"]
    assert not state.tick(0.0)


def test_an_engine_whose_core_is_overdue_gets_nothing_new() -> None:
    state = make_cluster(make_engine("d0"), make_engine("d1"))
    assert state.is_overdue(state.engines["d0"], 2.0, 0.0)

    placed = [place(state, make_query(f"r{at}")).placement.decode for at in range(4)]

    assert {one.name for one in placed if one} == {"d1"}
    assert state.engines["d0"].view.stalled


def test_an_engine_to_be_avoided_is_taken_only_where_no_other_serves() -> None:
    state = make_cluster(make_engine("d0"), make_engine("d1"))
    avoid = (state.engines["d0"].description.engine_id,)

    beside = place(state, make_query("r1", avoid=avoid)).placement.decode
    state.leave(state.engines["d1"], 1.0)
    alone = place(state, make_query("r2", avoid=avoid)).placement.decode

    assert beside is not None
    assert beside.name == "d1"
    assert alone is not None
    assert alone.name == "d0"


def test_the_end_of_an_old_stream_does_not_remove_the_engine_that_took_over() -> None:
    state = make_cluster(make_engine())
    old = state.engines["d0"]
    fall_silent(state)
    new = add(state, make_engine(engine_id="second"))

    state.leave(old, 1.0)
    kept = dict(state.engines)
    state.leave(new, 2.0)

    assert kept == {"d0": new}
    assert state.engines == {}


def test_an_outcome_is_part_of_the_explanation_and_unknown_ones_do_no_harm() -> None:
    state = make_cluster(make_engine())
    decision = place(state, make_query())
    outcome = make_outcome(decision, met=True)

    state.settle(outcome, 0.0)
    state.settle(make_outcome(decision, finished="abort"), 0.0)

    explanation = state.explain(decision.placement.decision_id)
    assert explanation is not None
    assert explanation.outcome is not None
    assert explanation.query == make_query()
    assert explanation.ways == decision.ways
    assert state.explain("d-other-1") is None


def test_only_the_latest_decisions_are_kept_and_all_are_settled() -> None:
    state = make_cluster(make_engine(max_running_requests=100), kept_decisions=3)
    decisions = [place(state, make_query(f"r{i}")) for i in range(5)]

    known = [state.explain(one.placement.decision_id) is not None for one in decisions]
    for decision in decisions:
        state.settle(make_outcome(decision), 0.0)

    assert known == [False, False, True, True, True]
    assert held(state) == 0


def test_decision_ids_never_repeat_and_tell_planners_apart() -> None:
    state = make_cluster(make_engine())

    ids = [place(state, make_query(f"r{i}")).placement.decision_id for i in range(3)]

    assert ids == ["d-e-1", "d-e-2", "d-e-3"]


def test_the_length_of_answers_is_learned_by_class() -> None:
    state = make_cluster(make_engine())
    query = make_query(max_output_tokens=1000)
    unknown = state.expected_output_tokens(query)

    state.settle(make_outcome(place(state, query), output_tokens=20), 0.0)

    assert (unknown, state.expected_output_tokens(query)) == (256, 20)
    assert state.expected_output_tokens(make_query(max_output_tokens=7)) == 7


@pytest.mark.parametrize("finished", ["abort", "error"])
def test_nothing_is_learned_of_answers_that_were_cut(finished: str) -> None:
    state = make_cluster(make_engine())
    query = make_query(max_output_tokens=1000)

    state.settle(make_outcome(place(state, query), output_tokens=1, finished=finished), 0.0)

    assert state.expected_output_tokens(query) == 256


def test_a_group_is_bound_only_while_its_engines_serve_and_for_a_while() -> None:
    def bound(state: ClusterState, now: float) -> bool:
        return state.group_engines("r1", now) is not None

    state = make_cluster(make_engine("d0"))
    place(state, make_query("r1"), now=100.0)
    engine = state.engines["d0"]

    assert bound(state, 101.0)
    assert not bound(state, 200.0)
    engine.draining = True
    assert not bound(state, 101.0)
    engine.draining = False
    state.leave(engine, 101.0)
    assert not bound(state, 101.0)


def test_when_the_prefill_engine_is_lost_the_request_keeps_its_decode_engine() -> None:
    state = make_cluster(*both_roles())
    place(state, make_query(forced_way=PlacementMode.DISAGGREGATED))

    state.leave(state.engines["p0"], LONG_AFTER_S)

    assert len(state.engines["d0"].unseen) == 1
    assert decide(make_query("r2"), state, LONG_AFTER_S).placement.runs


def test_engines_are_shown_with_their_load() -> None:
    state = make_cluster(make_engine("p0", Role.PREFILL))
    state.engines["p0"].observe(make_report(running=2, waiting=3, free_kv_blocks=7), now=1.0)

    view = state.engines["p0"].view

    assert (view.description.role, view.running, view.waiting) == (Role.PREFILL, 2, 3)
    assert (view.free_kv_blocks, view.draining) == (7, False)


def moved(state: ClusterState) -> tuple[EngineState, EngineState]:
    """A promised request on its way over both engines."""
    query = make_query(
        targets=SloTargets(ttft_s=5.0, tpot_s=0.1),
        forced_way=PlacementMode.DISAGGREGATED,
        max_output_tokens=9,
    )
    assert place(state, query).placement.admission is Admission.ADMITTED
    return state.engines["p0"], state.engines["d0"]


def test_late_kv_comes_now_at_the_earliest_and_its_deadline_moves_with_it() -> None:
    _, end = moved(make_cluster(*both_roles()))
    foreseen = end.standing_rows(LONG_AFTER_S)[0]
    late_s = 3.0

    row = end.standing_rows(foreseen[AVAILABLE] + late_s)[0]

    assert row[AVAILABLE] == pytest.approx(foreseen[AVAILABLE] + late_s)
    assert row[DEADLINE] == pytest.approx(foreseen[DEADLINE] + late_s)


def test_what_is_lost_where_its_prompt_is_computed_is_not_promised_where_it_goes_on() -> None:
    state = make_cluster(*both_roles())
    start, end = moved(state)
    rows = start.standing_rows(LONG_AFTER_S)
    rows[:, KIND] = EXPIRED

    state.observe(start, [make_report(running=1, requests=to_wire(rows, 1001.0))], 1001.0)

    assert end.unseen
    assert not len(end.standing_rows(1001.0))


def test_what_engines_tell_of_transfers_shapes_the_times_foreseen_over_that_pair() -> None:
    state = make_cluster(*both_roles(), make_engine("d1"))
    transfer = KvTransfer(
        request_id="r1",
        peer_engine_id="p0-first",
        transport="nixl",
        bytes=100_000,
        seconds=2.0,
        outcome=KV_USED,
    )
    query = make_query(forced_way=PlacementMode.DISAGGREGATED)

    def foreseen() -> dict[str | None, float]:
        ways = decide(query, state, LONG_AFTER_S).ways
        return {way.decode: way.transfer_s for way in ways if way.transfer_s is not None}

    before = foreseen()

    for _ in range(10):
        report = make_report(kv_transfers=(transfer,))
        state.observe(state.engines["d0"], [report], LONG_AFTER_S)

    after = foreseen()
    assert before["d0"] == before["d1"] == pytest.approx(0.005 + 100_000 / 5e8)
    assert after["d0"] == pytest.approx(2.0, rel=0.2)
    assert before["d1"] < after["d1"] < after["d0"]


def test_what_an_engine_told_of_a_transfer_is_kept_when_the_decision_is_closed() -> None:
    state = make_cluster(*both_roles())
    decision = place(state, make_query(forced_way=PlacementMode.DISAGGREGATED))
    transfer = KvTransfer(
        request_id="r1",
        peer_engine_id="unknown",
        transport="nixl",
        bytes=1,
        seconds=1.0,
        outcome=KV_USED,
    )
    known = state.explain(decision.placement.decision_id)
    assert known is not None
    state.observe(state.engines["d0"], [make_report(kv_transfers=(transfer,))], LONG_AFTER_S)

    assert state.note(known).transfer == transfer
    assert state.explain(decision.placement.decision_id) == replace(known, transfer=transfer)
