"""The made load: bursty, quiet and busy, always the same, and with exactly as much as is asked."""

from itertools import pairwise
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.bench.capacity.classes import mix
from services.bench.capacity.workload import Offered
from services.bench.soak.bursts import TENTHS, bursty, busy_and_quiet

LOAD = bursty(mix("mixed"), 1, 20_000, 4.0)


def test_gaps_vary_as_much_as_was_asked_for() -> None:
    gaps = [later.at - one.at for one, later in pairwise(LOAD.arrivals)]

    assert fmean(gaps) == pytest.approx(1.0, rel=0.1)
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(4.0, rel=0.15)


@given(seconds=st.floats(10.0, 3600.0), times=st.lists(st.floats(0.0, 1.0), min_size=1))
def test_busy_and_quiet_times_change_neither_order_nor_number(
    seconds: float, times: list[float]
) -> None:
    offered = [
        Offered(at_s=share * seconds, class_name="chat", prompt_tokens=1, output_tokens=1)
        for share in sorted(times)
    ]

    moved = busy_and_quiet(offered, seconds)

    assert len(moved) == len(offered)
    assert all(one.at_s <= later.at_s + 1e-9 for one, later in pairwise(moved))
    assert all(0.0 <= one.at_s <= seconds * (1 + 1e-9) for one in moved)


def test_each_tenth_of_the_day_gets_its_share() -> None:
    even = [
        Offered(at_s=number / 10, class_name="chat", prompt_tokens=1, output_tokens=1)
        for number in range(10_000)
    ]

    moved = busy_and_quiet(even, 1000.0)

    for number, busy in enumerate(TENTHS):
        count = sum(number * 100 <= one.at_s < (number + 1) * 100 for one in moved)
        assert count == pytest.approx(1000 * busy, rel=0.01)


def test_the_same_seed_makes_the_same_day() -> None:
    assert bursty(mix("mixed"), 2, 50, 4.0) == bursty(mix("mixed"), 2, 50, 4.0)
    assert bursty(mix("mixed"), 2, 50, 4.0) != bursty(mix("mixed"), 3, 50, 4.0)
