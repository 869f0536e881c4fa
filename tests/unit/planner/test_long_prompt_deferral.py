import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.planner.estimators.long_prompt_deferral import LongPromptDeferral

SECONDS = st.floats(0.001, 100.0)


def taught(takes_s: float = 0.1, ttft_s: float = 0.5) -> LongPromptDeferral:
    restraint = LongPromptDeferral()
    restraint.learn(takes_s, ttft_s)
    return restraint


@given(takes_s=SECONDS, left_s=SECONDS, ahead_s=SECONDS)
def test_no_prompt_is_deferred_before_anything_is_known(
    takes_s: float, left_s: float, ahead_s: float
) -> None:
    assert not LongPromptDeferral().defers(takes_s, left_s, ahead_s)


@given(takes_s=SECONDS, left_s=SECONDS)
def test_no_prompt_is_deferred_where_no_prompt_is_ahead(takes_s: float, left_s: float) -> None:
    assert not taught().defers(takes_s, left_s, 0.0)


@given(takes_s=SECONDS, ahead_s=SECONDS)
def test_no_prompt_is_deferred_beyond_its_last_moment(takes_s: float, ahead_s: float) -> None:
    assert not taught().defers(takes_s, 1.3 * takes_s, ahead_s)


@given(takes_s=SECONDS, left_s=SECONDS, ahead_s=SECONDS, more=st.floats(1.0, 10.0))
def test_a_deferred_prompt_is_deferred_with_more_ahead_as_well(
    takes_s: float, left_s: float, ahead_s: float, more: float
) -> None:
    restraint = taught()
    assume(restraint.defers(takes_s, left_s, ahead_s))

    assert restraint.defers(takes_s, left_s, more * ahead_s)


@given(takes_s=SECONDS, ahead_s=SECONDS)
def test_of_two_prompts_with_time_the_cheaper_one_is_never_the_deferred_one(
    takes_s: float, ahead_s: float
) -> None:
    restraint, enough_s = taught(), 1000.0
    assume(restraint.defers(takes_s, enough_s, ahead_s))

    assert restraint.defers(2 * takes_s, enough_s, ahead_s)


def test_a_long_prompt_is_measured_by_recent_prompts() -> None:
    cheap, dear = taught(takes_s=0.01), taught(takes_s=0.01)
    for _ in range(500):
        dear.learn(1.0, 0.5)

    assert cheap.defers(0.1, 10.0, 0.1)
    assert not dear.defers(0.1, 10.0, 0.1)
    assert dear.takes_s == pytest.approx(1.0, rel=1e-3)
