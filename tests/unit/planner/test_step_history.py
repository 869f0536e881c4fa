"""The steps of an engine as the planner remembers them: when they ended, and what was expected."""

import pytest

from services.planner.state.step_history import MOST_STEPS, StepHistory
from shared.batch_time import BatchTimeModel, StepTable
from shared.engines import StepReport
from tests.unit.planner.builders import COST, make_report

TABLE = BatchTimeModel(COST).table
EXPECTED_S = 0.011  # of one decode, by COST


def step(ended_at_s: float, duration_s: float = 0.02) -> StepReport:
    return make_report(ended_at_s=ended_at_s, duration_s=duration_s, decode_tokens=1, running=1)


def heard(*steps: StepReport, late_s: float = 0.0) -> StepHistory:
    """Each in a report of its own, by a clock that is 100 s behind ours."""
    history = StepHistory()
    for one in steps:
        history.add([one], one.ended_at_s + 100.0 + late_s)
    return history


def table() -> StepTable:
    assert TABLE is not None
    return TABLE


def test_steps_of_a_time_are_summed_beside_what_the_table_says_of_them() -> None:
    history = heard(*(step(float(number)) for number in range(1, 6)))

    sums = history.sums("d0", table(), 101.5, 104.0)

    assert sums is not None
    assert (sums.engine, sums.steps, sums.decode_tokens, sums.beyond_sure) == ("d0", 3, 3, 3)
    assert sums.real_s == pytest.approx(0.06)
    assert sums.expected_s == pytest.approx(3 * EXPECTED_S)
    assert sums.worst_excess_s == pytest.approx((3 * 0.02 - sums.sure_s) / 3)


def test_the_clocks_are_laid_over_each_other_by_the_report_that_came_soonest() -> None:
    history = StepHistory()
    history.add([step(1.0)], 101.0)
    history.add([step(2.0)], 102.4)

    assert history.sums("d0", table(), 101.5, 101.991) is not None
    assert history.sums("d0", table(), 101.991, 103.0) is None


def test_of_a_time_without_steps_or_an_engine_without_a_table_nothing_is_said() -> None:
    history = heard(step(1.0), make_report(ended_at_s=2.0))

    assert len(history) == 1
    assert history.sums("d0", table(), 101.5, 110.0) is None
    assert history.sums("d0", None, 100.0, 110.0) is None


def test_only_the_latest_steps_are_kept() -> None:
    history = StepHistory()
    for number in range(5 * MOST_STEPS):
        history.add([step(number / 100)], number / 100)

    assert MOST_STEPS <= len(history) <= 2 * MOST_STEPS
    last = history.sums("d0", table(), 5 * MOST_STEPS / 100 - 10.015, 1e9)
    assert last is not None
    assert last.steps == 1000
