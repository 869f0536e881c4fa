"""A first token's way from engine to client is learned, and taken off what engines are told."""

import pytest

from services.planner.delivery import Delivery
from services.planner.placement import Decision
from services.planner.rounds import Asked, decide_round
from shared.requests import Outcome, SloTargets
from shared.scheduling.rows import DUE
from tests.unit.planner.builders import (
    LONG_AFTER_S,
    commit,
    make_cluster,
    make_engine,
    make_query,
)


def ended(way_s: float) -> Outcome:
    return Outcome(
        decision_id="d",
        request_id="r",
        finished="stop",
        ttft_s=0.3 + way_s,
        held_s=0.1,
        queue_s=0.1,
        prefill_s=0.1,
    )


def test_what_is_in_none_of_the_parts_of_a_first_token_is_its_way() -> None:
    delivery = Delivery()
    for _ in range(200):
        delivery.learn(ended(0.02))

    assert delivery.likely_s == pytest.approx(0.02, rel=0.05)


def test_half_of_a_target_stays_with_the_engine_however_long_the_way() -> None:
    delivery = Delivery()
    for _ in range(200):
        delivery.learn(ended(0.2))

    assert delivery.before(10.0) == delivery.likely_s
    assert delivery.before(0.1) == 0.05


def test_promise_and_books_have_the_first_token_as_much_earlier_as_its_way_takes() -> None:
    state = make_cluster(make_engine())
    for _ in range(200):
        state.delivery.learn(ended(0.02))
    query = make_query(targets=SloTargets(ttft_s=1.0, tpot_s=0.5))
    asked = Asked(query=query, arrived_at_s=LONG_AFTER_S, first_asked_at_s=LONG_AFTER_S)

    (decision,) = decide_round([asked], state, LONG_AFTER_S)
    assert isinstance(decision, Decision)
    commit(state, query, decision, LONG_AFTER_S)

    delivery_s = state.delivery.likely_s
    (engine,) = state.engines.values()
    (hold,) = engine.unseen.values()
    assert decision.placement.ttft_s == 1.0
    assert decision.placement.delivery_s == delivery_s
    assert hold.row[DUE] == pytest.approx(LONG_AFTER_S + 1.0 - delivery_s)
