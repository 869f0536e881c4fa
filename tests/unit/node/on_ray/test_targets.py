from hypothesis import given
from hypothesis import strategies as st

from services.node.on_ray.targets import Targets

DOWN_AFTER_S = 60.0


def targets() -> Targets:
    return Targets(down_after_s=DOWN_AFTER_S)


def test_without_advice_the_number_stays() -> None:
    assert targets().wanted("decode", 3, None, now=0.0) == 3


def test_a_number_that_was_set_holds_against_advice() -> None:
    made = targets()
    made.fix({"decode": 2})
    assert made.wanted("decode", 3, 7, now=0.0) == 2
    assert made.wanted("prefill", 1, 4, now=0.0) == 4


def test_a_service_that_is_given_back_follows_advice_again() -> None:
    made = targets()
    made.fix({"decode": 2})
    made.fix({"decode": None})
    assert made.wanted("decode", 2, 5, now=0.0) == 5


def test_more_is_followed_at_once_and_fewer_only_when_it_lasts() -> None:
    made = targets()
    assert made.wanted("decode", 2, 4, now=0.0) == 4
    assert made.wanted("decode", 4, 1, now=1.0) == 4
    assert made.wanted("decode", 4, 1, now=1.0 + DOWN_AFTER_S) == 1


def test_a_moment_of_need_starts_the_wait_anew() -> None:
    made = targets()
    assert made.wanted("decode", 4, 1, now=0.0) == 4
    assert made.wanted("decode", 4, 4, now=DOWN_AFTER_S / 2) == 4
    assert made.wanted("decode", 4, 1, now=DOWN_AFTER_S) == 4
    assert made.wanted("decode", 4, 1, now=2 * DOWN_AFTER_S) == 1


@given(st.lists(st.integers(0, 3), min_size=1))
def test_it_goes_down_to_the_highest_number_that_was_advised_meanwhile(advice: list[int]) -> None:
    made = targets()
    for advised in advice:
        assert made.wanted("prefill", 4, advised, now=0.0) == 4
    assert made.wanted("prefill", 4, 0, now=DOWN_AFTER_S) == max(advice)


@given(st.integers(1, 8), st.integers(1, 8), st.floats(0.1, 30.0))
def test_advice_that_alternates_faster_than_the_wait_never_stops_an_engine(
    high: int, low: int, every_s: float
) -> None:
    made, present, now = targets(), high, 0.0
    for turn in range(20):
        before = present
        present = made.wanted("decode", present, low if turn % 2 else high, now)
        assert present >= before
        now += every_s
