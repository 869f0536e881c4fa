"""A first token's way from engine to client is learned, and taken off what engines are told."""

import numpy as np
import pytest

from services.planner.admission.pending import PendingRequest
from services.planner.admission.placement import Decision
from services.planner.admission.rounds import decide_round
from services.planner.estimators.client_latency import ClientLatency
from shared.requests import Outcome, SloTargets
from shared.scheduling.rows import DEADLINE, new_row
from tests.unit.planner.builders import (
    LONG_AFTER_S,
    commit,
    make_cluster,
    make_engine,
    make_query,
    make_report,
)


def ended(way_s: float, queue_s: float = 0.1) -> Outcome:
    return Outcome(
        decision_id="d",
        request_id="r",
        finished="stop",
        ttft_s=0.2 + queue_s + way_s,
        held_s=0.1,
        queue_s=queue_s,
        prefill_s=0.1,
    )


def test_what_is_in_none_of_the_parts_of_a_first_token_is_its_way() -> None:
    delivery = ClientLatency()
    for _ in range(200):
        delivery.learn(ended(0.02))

    assert delivery.back_s == pytest.approx(0.02, rel=0.05)


def test_half_of_a_target_stays_with_the_engine_however_long_the_way() -> None:
    delivery = ClientLatency()
    for _ in range(200):
        delivery.learn(ended(0.2))

    assert delivery.before(10.0) == delivery.back_s
    assert delivery.before(0.1) == 0.05


def test_promise_and_books_have_the_first_token_as_much_earlier_as_its_way_takes() -> None:
    state = make_cluster(make_engine())
    for _ in range(200):
        state.client_latency.learn(ended(0.02))
    query = make_query(targets=SloTargets(ttft_s=1.0, tpot_s=0.5))
    asked = PendingRequest(query=query, arrived_at_s=LONG_AFTER_S, first_asked_at_s=LONG_AFTER_S)

    (decision,) = decide_round([asked], state, LONG_AFTER_S)
    assert isinstance(decision, Decision)
    commit(state, query, decision, LONG_AFTER_S)

    delivery_s = state.client_latency.back_s
    (engine,) = state.engines.values()
    (hold,) = engine.unseen.values()
    assert decision.placement.ttft_s == 1.0
    assert decision.placement.delivery_s == delivery_s
    assert hold.row[DEADLINE] == pytest.approx(LONG_AFTER_S + 1.0 - delivery_s)


def test_the_way_there_is_what_the_quickest_requests_wait_for_their_first_step() -> None:
    """Steps of 50 ms: most wait for the end of one."""
    delivery, random = ClientLatency(), np.random.default_rng(1)
    for wait_s in random.uniform(0.0, 0.05, 2000):
        delivery.learn(ended(0.02, queue_s=0.004 + wait_s))

    assert 0.003 < delivery.there_s < 0.015


def test_no_step_that_begins_before_a_request_is_there_counts_for_its_promise() -> None:
    """The engine forms a step of 11 ms in a moment, and the next one holds the prompt."""
    state = make_cluster(make_engine())
    engine = state.engines["d0"]
    engine.rows = new_row(
        tokens=50, computed=49, produced=5, left=400, due_s=LONG_AFTER_S + 1, tpot_s=0.5
    )[None]
    first_s = {}
    for free_in_s in (0.0, 0.003):
        engine.report, engine.heard_at_s = make_report(busy_s=free_in_s, running=1), LONG_AFTER_S
        query = make_query(targets=SloTargets(ttft_s=1.0, tpot_s=0.5))
        asked = PendingRequest(
            query=query, arrived_at_s=LONG_AFTER_S, first_asked_at_s=LONG_AFTER_S
        )
        (decision,) = decide_round([asked], state, LONG_AFTER_S)
        assert isinstance(decision, Decision)
        first_s[free_in_s] = decision.placement.predicted_ttft_s or 0.0

    assert first_s[0.0] > first_s[0.003] + 0.005
