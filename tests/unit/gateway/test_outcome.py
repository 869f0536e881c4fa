from dataclasses import replace

import pytest

from services.gateway.outcome import outcome_of
from shared.requests import SloTargets
from tests.unit.gateway.http_fakes import PLACED, add_sequence, give_tokens, request_scope


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
