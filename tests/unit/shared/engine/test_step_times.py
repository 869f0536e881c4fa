from itertools import pairwise

import pytest

from shared.batch_time import RICH, Step, StepTable, fit_curve, to_plain
from shared.batch_time.table import counts_of
from shared.engine.step_times import StepTimes


def seconds(step: Step) -> float:
    return 0.06 + 0.002 * step.tokens


def profile() -> dict[str, object]:
    steps = [
        Step(decodes=k, decode_context_tokens=50 * k).with_chunk(c)
        for k in (0, 1, 4, 16)
        for c in (0, 16, 64, 256)
        if k + c
    ]
    return to_plain(fit_curve(RICH, steps, [seconds(one) for one in steps]))


def test_nothing_is_expected_and_told_while_nothing_is_known() -> None:
    times = StepTimes()

    assert times.expected_s(counts_of(Step(decodes=3))) == 0
    assert times.news(1.0) == b""


def test_with_a_profile_the_first_step_is_expected_right_and_the_table_told() -> None:
    times = StepTimes()
    times.start_from(profile())

    told = StepTable.from_bytes(times.news(1.0))

    assert times.expected_s(counts_of(Step(decodes=8))) == pytest.approx(0.076, rel=0.01)
    assert told.expected_s(Step(decodes=8)) == times.expected_s(counts_of(Step(decodes=8)))


def test_an_engine_that_slows_down_is_followed() -> None:
    times = StepTimes()
    times.start_from(profile())
    step = Step(decodes=8)
    for number in range(60):
        times.observe(step, 1.4 * seconds(step), 0.1 * number)

    assert times.expected_s(counts_of(step)) == pytest.approx(1.4 * seconds(step), rel=0.1)


def test_a_table_is_told_when_it_is_new_and_once_a_second_at_most() -> None:
    times = StepTimes()
    times.start_from(profile())
    told = []
    for number in range(40):
        now_s = 10 + 0.1 * number
        times.observe(Step(decodes=2), 0.07, now_s)
        told.append(bool(times.news(now_s)))

    assert told[0]
    assert sum(told) == 4


def test_short_steps_are_not_all_learned_from() -> None:
    times = StepTimes()
    times.start_from(profile())
    tables = []
    for number in range(100):
        times.observe(Step(decodes=2), 0.07, 10 + 0.001 * number)
        tables.append(times.table)
    changes = sum(a is not b for a, b in pairwise(tables))

    assert 3 <= changes <= 5


def test_a_profile_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no fit"):
        StepTimes().start_from({"form": "rich"})
