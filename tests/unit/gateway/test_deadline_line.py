from dataclasses import replace
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.deadline_line import DeadlineLine, deadline_line
from shared.requests import Pacing
from tests.unit.gateway.http_fakes import PLACED

BY_DEADLINES = replace(PLACED, ttft_s=0.5, pacing=Pacing.DEADLINES)
TTFT_S, PACE_S = 0.5, 0.05
pauses = st.lists(st.floats(min_value=0.0, max_value=0.3), min_size=1, max_size=40)


def line_of(*came_at_s: float) -> DeadlineLine:
    line = DeadlineLine(TTFT_S)
    for at_s in came_at_s:
        line.produced(at_s, PACE_S)
    return line


@given(pauses)
def test_a_token_is_judged_by_the_ttft_and_the_paces_of_those_after_the_first(
    waits_s: list[float],
) -> None:
    came_at_s = list(accumulate(waits_s))

    quotients = [at_s / (TTFT_S + n * PACE_S) for n, at_s in enumerate(came_at_s) if n]
    assert line_of(*came_at_s).lateness == pytest.approx(max(quotients, default=0.0))


@given(pauses)
def test_when_the_next_token_is_due_is_no_matter_of_when_the_others_came(
    waits_s: list[float],
) -> None:
    line = line_of(*accumulate(waits_s))

    assert line.next_due_s(PACE_S) == pytest.approx(TTFT_S + len(waits_s) * PACE_S)


@given(waits_s=pauses, earlier_s=st.floats(min_value=0.0, max_value=1.0))
def test_to_come_earlier_makes_no_answer_later(waits_s: list[float], earlier_s: float) -> None:
    came_at_s = list(accumulate(waits_s))
    sooner = [max(0.0, at_s - earlier_s) for at_s in came_at_s]

    assert line_of(*sooner).lateness <= line_of(*came_at_s).lateness


def test_of_tokens_that_come_together_the_first_one_is_the_latest() -> None:
    assert line_of(0.1, 0.66, 0.66, 0.66).lateness == pytest.approx(0.66 / 0.55)


def test_how_late_the_first_token_came_is_no_matter_of_the_line() -> None:
    assert line_of(99.0).lateness == 0.0


def test_without_a_pace_nothing_is_late_after_the_first_token() -> None:
    line = DeadlineLine(TTFT_S)
    for at_s in (0.1, 99.0, 999.0):
        line.produced(at_s, float("inf"))

    assert line.lateness == 0.0


def test_only_a_placement_by_deadlines_with_a_ttft_has_a_line() -> None:
    assert deadline_line(BY_DEADLINES) == DeadlineLine(0.5)
    assert deadline_line(replace(BY_DEADLINES, pacing=Pacing.MEAN)) is None
    assert deadline_line(replace(BY_DEADLINES, ttft_s=None)) is None
