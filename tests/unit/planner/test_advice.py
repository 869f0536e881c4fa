import pytest

from services.planner.advice import ADVICE_PAUSE_S, advise
from services.planner.attachments import Attachment
from services.planner.state import ClusterState
from shared.requests import SloTargets
from tests.unit.planner.builders import make_cluster, make_engine, make_query, place

NOW_S = 1000.0


def attached() -> tuple[ClusterState, Attachment]:
    state = make_cluster(make_engine())
    return state, Attachment(engine=state.engines["d0"])


def promise(state: ClusterState, ttft_s: float) -> None:
    decision = place(state, make_query(targets=SloTargets(ttft_s=ttft_s)), NOW_S)
    assert decision.placement.runs


def test_an_engine_that_made_a_promise_is_told_how_long_its_steps_may_last() -> None:
    state, attachment = attached()
    promise(state, ttft_s=2.0)

    advise(attachment, state, NOW_S)

    assert attachment.policy.longest_step_s == pytest.approx(2 / 3)
    assert attachment.policy.version == 2


def test_the_same_policy_is_not_sent_twice() -> None:
    state, attachment = attached()
    promise(state, ttft_s=2.0)

    for look in range(3):
        advise(attachment, state, NOW_S + look)

    assert attachment.policy.version == 2


def test_an_engine_is_looked_at_only_so_often() -> None:
    state, attachment = attached()
    advise(attachment, state, NOW_S)
    before = attachment.policy
    promise(state, ttft_s=2.0)

    advise(attachment, state, NOW_S + ADVICE_PAUSE_S / 2)
    assert attachment.policy == before

    advise(attachment, state, NOW_S + ADVICE_PAUSE_S)
    assert attachment.policy.longest_step_s == pytest.approx(2 / 3)
