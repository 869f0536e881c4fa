"""What is learned of KV on its way is when it is there to be used."""

from collections.abc import Sequence
from dataclasses import replace

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


def after(*, seen_s: Sequence[float], transfer_s: float = 0.25, lost: bool = False) -> Transfers:
    """Transfers that ended at these times, each with a step of 50 ms behind it."""
    transfers = Transfers()
    for now in seen_s:
        ended = replace(outcome(transfer_s=transfer_s, step_s=0.05, tokens=9), recomputed=lost)
        transfers.learn(explained(), ended, FORESEEN_S, now)
    return transfers


@pytest.mark.parametrize("tokens", [3, 10, 200])
def test_the_step_that_first_uses_it_is_no_part_of_its_way(tokens: int) -> None:
    transfers = Transfers()
    for _ in range(1000):
        transfers.learn(
            explained(), outcome(transfer_s=0.25, step_s=0.05, tokens=tokens), FORESEEN_S, 0.0
        )

    assert transfers.likely_s("p0", "d0", FORESEEN_S, 0.0) == pytest.approx(0.2, rel=0.1)
    assert transfers.likely_s("p0", "d1", FORESEEN_S, 0.0) == FORESEEN_S


def test_what_stays_on_one_engine_teaches_nothing() -> None:
    transfers = Transfers()

    transfers.learn(
        explained(moved=False), outcome(transfer_s=0.25, step_s=0.05, tokens=9), FORESEEN_S, 0.0
    )

    assert transfers.likely_s("p0", "d0", FORESEEN_S, 0.0) == FORESEEN_S


def test_the_more_transfers_were_slow_the_more_of_it_is_believed() -> None:
    likely_s = [
        after(seen_s=[0.0] * times).likely_s("p0", "d0", FORESEEN_S, 0.0) for times in range(4)
    ]

    assert likely_s[0] == FORESEEN_S
    assert likely_s[1] == pytest.approx(FORESEEN_S + 0.18 / 2)
    assert likely_s == sorted(set(likely_s))


@pytest.mark.parametrize("times", [1, 20])
def test_a_pair_that_nobody_tries_again_is_forgiven(times: int) -> None:
    slow = after(seen_s=[0.0] * times, transfer_s=5.0)

    likely_s = [slow.likely_s("p0", "d0", FORESEEN_S, now) for now in (0.0, 60.0, 120.0, 1e6)]

    assert likely_s == sorted(likely_s, reverse=True)
    assert likely_s[-1] == pytest.approx(FORESEEN_S)


def test_kv_that_got_lost_is_forgiven_as_well() -> None:
    losing = after(seen_s=[0.0, 0.0, 0.0], lost=True)

    shares = [losing.recomputed_share("p0", "d0", now) for now in (0.0, 60.0, 1e6)]

    assert shares == pytest.approx([3 / 4, 1.5 / 2.5, 0.0])
    assert losing.likely_s("p0", "d0", FORESEEN_S, 0.0) == FORESEEN_S
