import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.bench.capacity.search import Bisection, Contender, capacity, crossing

rates = st.floats(min_value=0.1, max_value=100.0)


def tried(first_rps: float, true_rps: float, rounds: int) -> Bisection:
    bisection = Bisection(first_rps)
    for _ in range(rounds):
        rate_rps = bisection.next_rps
        bisection.note(rate_rps, passes=rate_rps <= true_rps)
    return bisection


@given(first_rps=rates, true_rps=rates)
def test_the_capacity_lies_between_the_last_pass_and_the_last_failure(
    first_rps: float, true_rps: float
) -> None:
    bisection = tried(first_rps, true_rps, 30)

    assert bisection.passed_rps is not None
    assert bisection.failed_rps is not None
    assert bisection.passed_rps <= true_rps < bisection.failed_rps
    assert bisection.failed_rps / bisection.passed_rps < 1.01


def test_two_rounds_after_the_bracket_leave_a_tenth() -> None:
    bisection = tried(1.0, 1.2, 4)

    assert bisection.failed_rps is not None
    assert bisection.passed_rps is not None
    assert bisection.failed_rps / bisection.passed_rps == pytest.approx(1.5 ** (1 / 4))


def test_a_failure_below_a_pass_is_noise() -> None:
    bisection = Bisection(1.0)
    bisection.note(2.0, passes=True)
    bisection.note(1.0, passes=False)

    assert bisection.next_rps == 3.0


def contender(*variants: str) -> Contender:
    return Contender(name="vllm", variants=variants, bisection=Bisection(1.0))


def test_the_best_variant_decides_and_those_clearly_behind_are_dropped() -> None:
    one = contender("64", "128", "512")
    one.note(1.0, {"64": 0.88, "128": 0.92, "512": 0.5}, 0.9)

    assert one.bisection.passed_rps == 1.0
    assert one.variants == ("64", "128")
    assert one.best_variant == "128"


def test_the_last_round_names_the_best_variant() -> None:
    one = contender("64", "128")
    one.note(1.0, {"64": 0.99, "128": 1.0}, 0.9)
    one.note(1.5, {"64": 0.8, "128": 0.78}, 0.9)

    assert one.best_variant == "64"


def test_the_capacity_is_the_highest_rate_that_attains_enough() -> None:
    attainments = {1.0: 1.0, 2.0: 0.95, 3.0: 0.75, 4.5: 0.2}

    assert capacity(attainments, 0.9) == (2.0, 3.0)
    assert crossing(attainments, 0.9) == pytest.approx(2.25)


def test_no_rate_that_attains_enough_is_no_capacity() -> None:
    assert capacity({1.0: 0.5}, 0.9) == (0.0, 1.0)
    assert crossing({1.0: 0.5}, 0.9) == 0.0


@given(st.dictionaries(rates, st.floats(min_value=0.0, max_value=1.0), min_size=1))
def test_the_crossing_lies_between_the_capacity_and_the_next_rate(
    attainments: dict[float, float],
) -> None:
    passed, above = capacity(attainments, 0.9)

    assert passed <= crossing(attainments, 0.9) * (1 + 1e-9)
    assert crossing(attainments, 0.9) <= (math.inf if above is None else above) * (1 + 1e-9)
