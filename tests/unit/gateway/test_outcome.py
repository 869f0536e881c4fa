from dataclasses import replace

import pytest

from services.gateway.deadline_line import DeadlineLine
from services.gateway.outcome import outcome_of
from services.gateway.stages import StageProgress, StageRecord
from shared.requests import Pacing, SloTargets
from tests.unit.gateway.http_fakes import PLACED, add_sequence, give_tokens, request_scope

BY_DEADLINES = replace(PLACED, ttft_s=0.05, tpot_s=0.2, pacing=Pacing.DEADLINES)


def test_an_outcome_tells_times_tokens_and_the_transfer() -> None:
    scope = request_scope()
    record = add_sequence(scope, prefilled_at_s=10.1, decoding_at_s=10.13)
    give_tokens(record)

    outcome = outcome_of(scope, record, "length")

    assert (outcome.decision_id, outcome.output_tokens, outcome.met) == ("d-1", 11, True)
    assert outcome.transfer_s == pytest.approx(0.03)
    assert outcome.ttft_s == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("targets", "finished", "met"),
    [
        (SloTargets(ttft_s=0.5), "stop", True),
        (SloTargets(ttft_s=0.05), "stop", False),
        (SloTargets(ttft_s=0.5), "error", False),
        (SloTargets(ttft_s=0.5), "abort", None),
        (SloTargets(), "stop", None),
    ],
)
def test_what_was_left_or_asked_for_nothing_is_neither_met_nor_missed(
    targets: SloTargets, finished: str, met: bool | None
) -> None:
    scope = request_scope(targets)
    record = add_sequence(scope)
    give_tokens(record)

    assert outcome_of(scope, record, finished).met is met


def test_held_queued_and_prefilled_make_up_the_time_to_the_first_token() -> None:
    scope = request_scope()
    record = add_sequence(scope, placed_at_s=10.02, started_at_s=10.05)
    give_tokens(record)

    outcome = outcome_of(scope, record, "length")

    assert outcome.held_s == pytest.approx(0.02)
    assert outcome.queue_s == pytest.approx(0.03)
    assert outcome.prefill_s == pytest.approx(0.05)


def test_a_first_token_that_waited_for_the_kv_was_prefilled_before_that() -> None:
    scope = request_scope()
    record = add_sequence(
        scope, placed_at_s=10.02, started_at_s=10.05, prefilled_at_s=10.07, decoding_at_s=10.1
    )
    give_tokens(record)

    outcome = outcome_of(scope, record, "length")

    parts = (outcome.held_s, outcome.queue_s, outcome.prefill_s, outcome.transfer_s)
    assert sum(part for part in parts if part is not None) == pytest.approx(outcome.ttft_s)


def test_a_round_that_asked_for_nothing_is_judged_by_what_its_session_asks_for() -> None:
    scope = request_scope(SloTargets(), session_id="s")
    record = add_sequence(scope, placement=replace(PLACED, ttft_s=0.05, tpot_s=0.5))
    give_tokens(record)

    assert outcome_of(scope, record, "length").met is False


def test_with_deadlines_the_lateness_told_is_that_of_the_tokens_after_the_first() -> None:
    scope = request_scope()
    slow_stage = StageRecord("answer", 0.01, (), 10.1, 10.2, 2, 1)
    line = DeadlineLine(0.05)
    for came_at_s in (0.1, 0.12):
        line.produced(came_at_s, 0.2)
    record = add_sequence(
        scope, placement=BY_DEADLINES, stages=StageProgress([slow_stage]), line=line
    )
    give_tokens(record, tokens=2)

    outcome = outcome_of(scope, record, "length")

    assert outcome.stage_lateness == pytest.approx(0.12 / 0.25)
    assert outcome.met is False


def test_without_deadlines_the_lateness_told_is_that_of_the_slowest_stage() -> None:
    scope = request_scope()
    slow_stage = StageRecord("answer", 0.01, (), 10.1, 10.2, 2, 1)
    in_stages, plain = add_sequence(scope, stages=StageProgress([slow_stage])), add_sequence(scope)

    assert outcome_of(scope, in_stages, "length").stage_lateness == pytest.approx(10.0)
    assert outcome_of(scope, plain, "length").stage_lateness is None
