import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.bench.spread import Spread, percentile

TIMES = st.lists(st.floats(min_value=0, max_value=1e3), min_size=1, max_size=300)


@given(TIMES, st.integers(min_value=0, max_value=100))
def test_a_percentile_is_one_of_the_values_with_its_share_at_or_below(
    times: list[float], percent: int
) -> None:
    value = percentile(times, percent)

    assert value in times
    assert sum(time <= value for time in times) >= percent / 100 * len(times)


@given(TIMES)
def test_the_median_is_never_above_the_99th_percentile(times: list[float]) -> None:
    spread = Spread.of(times)

    assert spread.p50_ms <= spread.p99_ms <= 1000 * max(times)


def test_the_99th_percentile_of_a_hundred_leaves_one_out() -> None:
    assert Spread.of([number / 1000 for number in range(1, 101)]) == Spread(
        count=100, p50_ms=50.0, p99_ms=99.0
    )


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        Spread.of([])
