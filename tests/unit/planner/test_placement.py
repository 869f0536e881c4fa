"""Decisions that were computed by hand, and the rules in their plain cases."""

from dataclasses import replace
from typing import Any

import pytest

from shared.batch_time import BatchTimeModel
from shared.engines import EngineDescription, KvAddress, Role
from shared.requests import Admission, OnRefuse, PlacementMode, Reason, SloTargets, Stage
from tests.unit.planner.builders import (
    COST,
    LONG_AFTER_S,
    add,
    both_roles,
    decide,
    make_cluster,
    make_engine,
    make_outcome,
    make_query,
    make_report,
    place,
)


def test_idle_colocated_times_are_those_computed_by_hand() -> None:
    decision = decide(make_query(), make_cluster(make_engine()), LONG_AFTER_S)

    assert decision.chosen is not None
    chosen = decision.chosen
    assert (chosen.way, chosen.prefill, chosen.decode) == (PlacementMode.COLOCATED, None, "d0")
    assert chosen.queue_s == 0
    assert chosen.prefill_s == pytest.approx(0.01 + 100 * 0.001)
    assert chosen.tpot_s == pytest.approx(0.01 + 0.001)
    assert chosen.decode_s == pytest.approx(49 * 0.011)
    assert chosen.finish_s == pytest.approx(0.11 + 49 * 0.011)


def test_disaggregated_adds_the_transfer_and_only_after_the_first_token() -> None:
    query = make_query(forced_way=PlacementMode.DISAGGREGATED, waited_s=0.5)

    decision = decide(query, make_cluster(*both_roles()), LONG_AFTER_S)

    assert decision.chosen is not None
    assert (decision.chosen.prefill, decision.chosen.decode) == ("p0", "d0")
    assert decision.chosen.transfer_s == pytest.approx(0.005 + 100 * 1000 / 5e8)
    assert decision.chosen.ttft_s == pytest.approx(0.5 + 0.11)
    assert decision.chosen.finish_s == pytest.approx(0.5 + 0.11 + 0.0052 + 49 * 0.011)


def test_refusal_says_when_it_would_start_and_when_to_try_again() -> None:
    state = make_cluster(make_engine())
    state.engines["d0"].report = make_report(waiting=3, queued_prefill_tokens=1024)
    targets = SloTargets(ttft_s=0.8, on_refuse=OnRefuse.REFUSE)

    placement = decide(make_query(targets=targets), state, LONG_AFTER_S).placement

    assert placement.admission is Admission.REFUSED
    assert placement.reason is Reason.COMPUTE
    assert placement.predicted_ttft_s == pytest.approx(2 * 0.01 + 1.024 + 0.11)
    assert placement.retry_after_s == pytest.approx(0.4)
    assert placement.message == (
        "This request would start after 1.15 s, 0.8 s were asked for; try again in 0.4 s."
    )


def test_a_refused_client_comes_back_when_the_overload_is_probably_over() -> None:
    state = make_cluster(make_engine())
    state.engines["d0"].report = make_report(waiting=3, queued_prefill_tokens=1024)
    query = make_query(targets=SloTargets(ttft_s=0.8, on_refuse=OnRefuse.REFUSE))
    for ago_s in (6.0, 4.0, 1.0):
        state.refusals.refused(query.targets.class_name, LONG_AFTER_S - ago_s)

    placement = decide(query, state, LONG_AFTER_S).placement

    assert placement.retry_after_s == 12.0
    assert placement.message.endswith("try again in 12 s.")


def test_best_effort_carries_the_same_numbers_and_runs() -> None:
    state = make_cluster(make_engine())
    state.engines["d0"].report = make_report(waiting=3, queued_prefill_tokens=1024)

    placement = decide(make_query(targets=SloTargets(ttft_s=0.8)), state, LONG_AFTER_S).placement

    assert placement.admission is Admission.BEST_EFFORT
    assert placement.decode is not None
    assert placement.ttft_s == 0.8
    assert "1.15 s, 0.8 s were asked for" in placement.message


def test_a_pace_that_an_idle_engine_cannot_hold_is_refused_for_ever() -> None:
    stages = (Stage(name="thinking", tpot_s=0.005), Stage(name="answer", tpot_s=0.1))
    targets = SloTargets(stages=stages, on_refuse=OnRefuse.REFUSE)

    placement = decide(
        make_query(targets=targets), make_cluster(make_engine()), LONG_AFTER_S
    ).placement

    assert (placement.reason, placement.retry_after_s) == (Reason.NEVER, None)
    assert "11 ms per token, 5 ms were asked for" in placement.message


def test_a_slowdown_is_taken_of_the_idle_time() -> None:
    state = make_cluster(make_engine())
    state.engines["d0"].report = make_report(waiting=1, queued_prefill_tokens=90)

    placement = decide(
        make_query(targets=SloTargets(ttft_slowdown=3)), state, LONG_AFTER_S
    ).placement

    assert placement.ttft_s == pytest.approx(0.33)
    assert placement.predicted_ttft_s == pytest.approx(0.1 + 0.11)
    assert placement.admission is Admission.ADMITTED


@pytest.mark.parametrize(
    "targets",
    [
        SloTargets(ttft_slowdown=3),
        SloTargets(ttft_s=1),
        SloTargets(tpot_s=1, on_refuse=OnRefuse.REFUSE),
    ],
)
def test_before_any_report_nothing_is_promised_and_the_request_runs(targets: SloTargets) -> None:
    state = make_cluster(make_engine(), cost=None)

    placement = decide(make_query(targets=targets), state, LONG_AFTER_S).placement

    assert placement.admission is Admission.BEST_EFFORT
    assert placement.ttft_s == targets.ttft_s
    assert "Too few steps" in placement.message


def test_what_one_engine_reported_serves_for_one_that_has_not_yet() -> None:
    state = make_cluster(make_engine("d0"), make_engine("d1"), cost=None)
    table = BatchTimeModel(COST).table
    assert table is not None
    measured = make_report(running=8, step_time=table.to_bytes())
    state.observe(state.engines["d0"], [measured], LONG_AFTER_S)

    decision = decide(make_query(), state, LONG_AFTER_S)

    assert decision.chosen is not None
    assert decision.chosen.decode == "d1"
    assert decision.chosen.prefill_s is not None


def test_a_request_without_targets_is_admitted_without_a_promise() -> None:
    placement = decide(make_query(), make_cluster(make_engine()), LONG_AFTER_S).placement

    assert (placement.admission, placement.reason) == (Admission.ADMITTED, Reason.NO_TARGET)
    assert (placement.ttft_s, placement.tpot_s) == (None, None)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": "other"}, "serves 'm', not 'other'"),
        ({"prompt_tokens": 2000, "max_output_tokens": 49}, "takes at most 2048 tokens"),
        (
            {"whole_on_one_engine": True, "forced_way": PlacementMode.DISAGGREGATED},
            "change its result",
        ),
    ],
)
def test_what_could_never_run_is_refused_at_once(changed: dict[str, Any], words: str) -> None:
    state = make_cluster(*both_roles())

    placement = decide(make_query(**changed), state, 0.0).placement

    assert (placement.admission, placement.reason) == (Admission.REFUSED, Reason.NEVER)
    assert placement.retry_after_s is None
    assert words in placement.message


def test_a_request_that_outgrows_every_kv_cache_is_refused() -> None:
    state = make_cluster(make_engine(kv_blocks=8))

    placement = decide(make_query(), state, 0.0).placement

    assert placement.reason is Reason.NEVER
    assert "holds 128 tokens, 150 may be needed" in placement.message


def test_a_request_of_exactly_the_greatest_length_is_placed() -> None:
    query = make_query(prompt_tokens=2000, max_output_tokens=48)

    assert decide(query, make_cluster(make_engine()), 0.0).placement.runs


def test_without_engines_requests_wait_a_while_and_are_then_refused() -> None:
    state = make_cluster(grace_s=10.0, hold_s=0.5)

    early, late = (decide(make_query(), state, now).placement for now in (9.9, 10.1))

    assert (early.admission, early.hold_s) == (Admission.DEFERRED, 0.5)
    assert (late.admission, late.reason) == (Admission.REFUSED, Reason.NO_ENGINE)
    assert late.retry_after_s == 1.0


def test_the_loss_of_the_last_engine_starts_the_wait_anew() -> None:
    state = make_cluster(make_engine(), grace_s=10.0)
    state.leave(state.engines["d0"], 500.0)

    assert decide(make_query(), state, 509.0).placement.admission is Admission.DEFERRED
    assert decide(make_query(), state, 511.0).placement.admission is Admission.REFUSED


def test_a_forced_way_without_its_engines_is_refused_by_name() -> None:
    query = make_query(forced_way=PlacementMode.DISAGGREGATED)

    placement = decide(query, make_cluster(make_engine()), LONG_AFTER_S).placement

    assert (placement.admission, placement.reason) == (Admission.REFUSED, Reason.NO_ENGINE)
    assert placement.way is PlacementMode.DISAGGREGATED
    assert "no two engines that exchange KV" in placement.message


def test_engines_without_a_kv_address_never_exchange_kv() -> None:
    state = make_cluster(
        make_engine("p0", Role.PREFILL, kv_address=None), make_engine("d0", kv_address=None)
    )

    placement = decide(
        make_query(forced_way=PlacementMode.DISAGGREGATED), state, LONG_AFTER_S
    ).placement

    assert placement.admission is Admission.REFUSED


def over(name: str, *transports: str, role: Role = Role.DECODE) -> EngineDescription:
    addresses = tuple(KvAddress(transport=one, host="h", port=1) for one in transports)
    return make_engine(name, role, kv_address=addresses[0], kv_addresses=addresses)


def test_kv_moves_only_between_engines_that_share_a_transport() -> None:
    """However many engines without a common transport look better."""
    others = [over(f"a{number}", "nixl") for number in range(6)]
    start = over("p0", "zmq", role=Role.PREFILL)
    apart = make_query(forced_way=PlacementMode.DISAGGREGATED)

    without = decide(apart, make_cluster(start, *others), LONG_AFTER_S).placement
    reached = make_cluster(start, *others, over("z0", "nixl", "zmq"))
    reached.engines["z0"].report = make_report(running=5, decode_tokens=5)
    placement = decide(apart, reached, LONG_AFTER_S).placement

    assert without.admission is Admission.REFUSED
    assert placement.prefill is not None
    assert placement.decode is not None
    assert (placement.prefill.name, placement.decode.name) == ("p0", "z0")


def test_a_role_is_a_preference_not_a_wall() -> None:
    only_prefill = make_cluster(make_engine("p0", Role.PREFILL))
    only_decode = make_cluster(make_engine("d0"), make_engine("d1"))

    alone = decide(make_query(), only_prefill, LONG_AFTER_S).placement
    apart = decide(
        make_query(forced_way=PlacementMode.DISAGGREGATED), only_decode, LONG_AFTER_S
    ).placement

    assert alone.decode is not None
    assert alone.decode.name == "p0"
    assert apart.prefill is not None
    assert apart.decode is not None
    assert {apart.prefill.name, apart.decode.name} == {"d0", "d1"}


def test_the_way_that_a_caller_names_keeps_to_the_decode_engines() -> None:
    state = make_cluster(*both_roles())
    state.engines["d0"].report = make_report(waiting=1, queued_prefill_tokens=1000)

    free = decide(make_query(whole_on_one_engine=True), state, LONG_AFTER_S).placement
    named = decide(make_query(forced_way=PlacementMode.COLOCATED), state, LONG_AFTER_S).placement

    assert free.decode is not None
    assert named.decode is not None
    assert (free.decode.name, named.decode.name) == ("p0", "d0")


def test_a_decode_engine_busy_with_prompts_has_them_computed_elsewhere() -> None:
    state = make_cluster(*both_roles())
    state.engines["d0"].report = make_report(waiting=1, queued_prefill_tokens=1000)

    found = decide(make_query(), state, LONG_AFTER_S).placement
    apart = decide(
        make_query(forced_way=PlacementMode.DISAGGREGATED), state, LONG_AFTER_S
    ).placement

    assert (found.prefill, found.decode) == (None, apart.prefill)  # no KV has to move
    assert apart.prefill is not None
    assert apart.prefill.name == "p0"


def test_a_full_kv_cache_still_takes_requests_and_tells_the_wait() -> None:
    state = make_cluster(make_engine(kv_blocks=20))
    first = place(state, make_query("r1", prompt_tokens=200), now=100.0)
    state.engines["d0"].observe(make_report(running=1, free_kv_blocks=4), now=100.2)
    targets = SloTargets(ttft_s=0.4, on_refuse=OnRefuse.REFUSE)

    second = decide(make_query("r2", prompt_tokens=200), state, 100.2)
    refused = decide(make_query("r3", prompt_tokens=200, targets=targets), state, 100.2).placement

    assert first.chosen is not None
    assert first.chosen.finish_s is not None
    assert second.placement.runs
    assert second.chosen is not None
    assert second.chosen.queue_s == pytest.approx(first.chosen.finish_s - 0.2)
    assert refused.reason is Reason.MEMORY


def test_the_sequences_of_a_group_share_engines_and_their_prompt_is_computed_once() -> None:
    state = make_cluster(make_engine("d0"), make_engine("d1"))
    first = place(state, make_query("r1", group_id="g", prompt_tokens=400))

    sibling = place(state, make_query("r2", group_id="g", prompt_tokens=400))
    stranger = place(state, make_query("r3", prompt_tokens=400))

    assert first.chosen is not None
    assert sibling.chosen is not None
    assert stranger.chosen is not None
    assert sibling.chosen.decode == first.chosen.decode
    assert stranger.chosen.decode != first.chosen.decode
    assert sibling.chosen.prefill_s == pytest.approx(0.01 + 16 * 0.001)


def test_a_pair_that_loses_kv_is_avoided() -> None:
    state = make_cluster(
        make_engine("p0", Role.PREFILL), make_engine("p1", Role.PREFILL), *([make_engine("d0")])
    )
    query = make_query(forced_way=PlacementMode.DISAGGREGATED, prompt_tokens=1000)
    first = place(state, query)
    assert first.chosen is not None

    state.settle(make_outcome(first, recomputed=True), 0.0)
    again = place(
        state, make_query("r2", forced_way=PlacementMode.DISAGGREGATED, prompt_tokens=1000)
    )

    assert again.chosen is not None
    assert {first.chosen.prefill, again.chosen.prefill} == {"p0", "p1"}


def test_the_way_that_keeps_the_targets_goes_before_an_earlier_finish() -> None:
    late, slow = (make_engine(name, kv_address=None) for name in ("late", "slow"))
    state = make_cluster(late, slow)
    state.engines["late"].report = make_report(waiting=1, queued_prefill_tokens=400)
    state.engines["slow"].report = make_report(running=7, decode_tokens=7)
    targets = SloTargets(ttft_s=0.3)

    first_to_finish = decide(make_query(max_output_tokens=200), state, LONG_AFTER_S).chosen
    in_time = decide(make_query(max_output_tokens=200, targets=targets), state, LONG_AFTER_S).chosen

    assert first_to_finish is not None
    assert in_time is not None
    assert (first_to_finish.decode, in_time.decode) == ("late", "slow")


def test_a_draining_engine_is_named_as_such() -> None:
    state = make_cluster(make_engine("d0"), make_engine("d1"))
    state.engines["d0"].draining = True

    decision = decide(make_query(), state, LONG_AFTER_S)

    assert "d0 is draining" in [way.rejected for way in decision.ways]


def test_a_new_engine_is_tried() -> None:
    state = make_cluster(make_engine("d0"), cost=None)
    place(state, make_query("r1"))
    add(state, make_engine("d1"), cost=None)

    decision = place(state, make_query("r2"))

    assert decision.chosen is not None
    assert decision.chosen.decode == "d1"


def test_a_slowdown_is_taken_of_the_fastest_engine_there_is() -> None:
    """Engines of one make are asked once; a slow one, or one of short steps, is another make."""
    slow = replace(COST, fixed_s=10 * COST.fixed_s)
    state = make_cluster(make_engine("d1"), make_engine("d2", max_step_tokens=20))
    add(state, make_engine("d0"), slow)
    add(state, make_engine("d3"), slow)
    query = make_query(targets=SloTargets(ttft_slowdown=2.0))

    fastest = make_cluster(make_engine("d1"))

    assert place(state, query).placement.ttft_s == place(fastest, query).placement.ttft_s
