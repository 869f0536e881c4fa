"""What is learned of KV on its way is when it is there to be used."""

import pytest

from services.planner.transfers import Transfers
from shared.requests import (
    Admission,
    EngineRef,
    Explanation,
    Outcome,
    Placement,
    Reason,
)
from tests.unit.planner.builders import make_query

FORESEEN_S = 0.02


def explained(*, moved: bool = True) -> Explanation:
    start = EngineRef(name="p0", engine_id="p0-first", address="b")
    placement = Placement(
        decision_id="d",
        admission=Admission.ADMITTED,
        reason=Reason.NONE,
        prefill=start if moved else None,
        decode=EngineRef(name="d0", engine_id="d0-first", address="a"),
    )
    return Explanation(query=make_query(), placement=placement, decided_at_epoch_s=0.0, ways=())


def outcome(*, transfer_s: float, step_s: float, tokens: int) -> Outcome:
    """The first token of the second engine comes after `transfer_s`, the others `step_s` apart."""
    tpot_s = (transfer_s + (tokens - 2) * step_s) / (tokens - 1)
    return Outcome(
        decision_id="d",
        request_id="r",
        finished="stop",
        output_tokens=tokens,
        tpot_s=tpot_s,
        transfer_s=transfer_s,
    )


@pytest.mark.parametrize("tokens", [3, 10, 200])
def test_the_step_that_first_uses_it_is_no_part_of_its_way(tokens: int) -> None:
    transfers = Transfers()
    for _ in range(5):
        transfers.learn(
            explained(), outcome(transfer_s=0.25, step_s=0.05, tokens=tokens), FORESEEN_S
        )

    assert transfers.likely_s("p0", "d0", FORESEEN_S) == pytest.approx(0.2)
    assert transfers.likely_s("p0", "d1", FORESEEN_S) == FORESEEN_S


def test_what_stays_on_one_engine_teaches_nothing() -> None:
    transfers = Transfers()

    transfers.learn(
        explained(moved=False), outcome(transfer_s=0.25, step_s=0.05, tokens=9), FORESEEN_S
    )

    assert transfers.likely_s("p0", "d0", FORESEEN_S) == FORESEEN_S
