"""An answer that begins late ends in time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.scheduling.grace import grace_of

times = st.floats(1e-3, 10.0)


@given(
    tpot_s=times,
    later=st.integers(1, 5000),
    least_s=st.floats(0, 10),
    moved_s=st.floats(0, 10),
    gain=st.floats(1, 8),
)
def test_the_mean_is_kept_by_answers_of_at_least_that_length(
    tpot_s: float, later: int, least_s: float, moved_s: float, gain: float
) -> None:
    grace = grace_of(tpot_s, later, least_pace_s=least_s, moved_s=moved_s, gain=gain)
    for tokens in (later, later + 1, 3 * later):
        ends_s = grace.later_s + tokens * grace.pace_s
        assert ends_s <= tokens * tpot_s * (1 + 1e-9)
    assert grace.later_s >= 0
    assert 0 < grace.pace_s <= tpot_s


@given(tpot_s=times, later=st.integers(1, 5000), least_s=st.floats(0, 10))
def test_no_pace_comes_of_it_that_engines_have_trouble_with(
    tpot_s: float, later: int, least_s: float
) -> None:
    pace_s = grace_of(tpot_s, later, least_pace_s=least_s).pace_s
    assert pace_s >= min(tpot_s, least_s) * (1 - 1e-9)
    assert pace_s >= 0.9 * tpot_s


def test_drafts_leave_more_to_the_beginning() -> None:
    assert grace_of(0.05, 6, least_pace_s=0.02).pace_s == pytest.approx(0.95 * 0.05)
    assert grace_of(0.05, 6, least_pace_s=0.02, gain=2.0).pace_s == pytest.approx(0.8 * 0.05)
    assert grace_of(0.05, 6, least_pace_s=0.02, gain=1.001).pace_s == pytest.approx(
        0.95 * 0.05, rel=0.01
    )


def test_kv_that_comes_late_is_made_up_for_by_whatever_pace_that_takes() -> None:
    grace = grace_of(0.1, 10, least_pace_s=0.09, moved_s=0.4)
    assert grace.later_s >= 0.4
    assert grace.pace_s == pytest.approx(0.06)


@pytest.mark.parametrize("moved_s", [0.0, 5.0])
def test_what_cannot_be_made_up_for_gets_no_grace(moved_s: float) -> None:
    assert grace_of(0.1, 0, least_pace_s=0.01, moved_s=moved_s).later_s == 0
    assert grace_of(math.inf, 10, least_pace_s=0.01, moved_s=moved_s).later_s == 0
    assert grace_of(0.1, 10, least_pace_s=0.01, moved_s=2.0).pace_s == 0.1


def test_kv_that_moved_may_wait_for_the_end_of_a_step_whatever_a_decode_takes() -> None:
    grace = grace_of(0.05, 5, least_pace_s=0.052, moved_s=0.003)
    assert grace.pace_s == pytest.approx(0.9 * 0.05)
    assert grace.later_s == pytest.approx(5 * 0.1 * 0.05)
