"""What is learned of late and failed exports makes their source look slow, and fades."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.estimators.exports import Exports
from services.planner.tuning import LEAST_TRANSFER_SHARE, TRANSFER_HALF_LIFE_S
from shared.requests import EngineRef, PrefixExport, PrefixSource

FORECAST_S = 0.02
AGES_S = (0.0, TRANSFER_HALF_LIFE_S, 3 * TRANSFER_HALF_LIFE_S, 1e6)


def after(
    took_s: Sequence[float], *, exported: bool = True, forecast_s: float = FORECAST_S
) -> Exports:
    """Exports of engine a that took so long, all at time 0."""
    exports = Exports()
    engine = EngineRef(name="a", engine_id="a-first", address="a")
    source = PrefixSource(engine=engine, tokens=64, limit_s=1.0, forecast_s=forecast_s)
    for seconds in took_s:
        export = PrefixExport(decision_id="d", seconds=seconds, exported=exported)
        exports.learn(source, export, 0.0)
    return exports


@given(st.lists(st.just(FORECAST_S), max_size=30), st.floats(0, 10))
def test_a_source_that_exports_as_foretold_is_believed(took_s: list[float], asked_s: float) -> None:
    exports = after(took_s)

    assert exports.likely_s("a", asked_s, 0.0) == pytest.approx(asked_s)
    assert exports.failed_share("a", 0.0) == 0


@given(st.integers(1, 30), st.floats(1e-3, 10))
def test_the_more_exports_were_late_the_more_of_it_is_believed(times: int, late_s: float) -> None:
    fewer, more = (after([FORECAST_S + late_s] * count) for count in (times, times + 1))

    learned_s = [each.likely_s("a", FORECAST_S, 0.0) - FORECAST_S for each in (fewer, more)]

    assert 0.5 * late_s - 1e-9 <= learned_s[0] <= learned_s[1] + 1e-9 <= late_s + 1e-6


@given(st.lists(st.floats(0, 10), min_size=1), st.floats(0, 10))
def test_no_export_is_taken_to_be_much_quicker_than_the_load_allows(
    took_s: list[float], asked_s: float
) -> None:
    exports = after(took_s, forecast_s=5.0)

    assert exports.likely_s("a", asked_s, 0.0) >= LEAST_TRANSFER_SHARE * asked_s


@given(st.integers(1, 30), st.floats(0.1, 10))
def test_what_was_learned_of_a_source_fades(times: int, late_s: float) -> None:
    exports = after([FORECAST_S + late_s] * times, exported=False)

    learned_s = [exports.likely_s("a", FORECAST_S, now) for now in AGES_S]
    shares = [exports.failed_share("a", now) for now in AGES_S]

    assert learned_s == sorted(learned_s, reverse=True)
    assert learned_s[-1] == pytest.approx(FORECAST_S)
    assert 0.5 <= shares[0] < 1
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(0)


def test_a_slow_source_makes_no_other_one_look_slow() -> None:
    exports = after([5.0] * 9, exported=False)

    assert exports.likely_s("b", FORECAST_S, 0.0) == FORECAST_S
    assert exports.failed_share("b", 0.0) == 0
