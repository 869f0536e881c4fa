import pytest

from services.gateway.cluster_core import outcome_of
from shared.requests import SloTargets
from tests.unit.gateway.http_fakes import add_sequence, give_tokens, request_scope


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
