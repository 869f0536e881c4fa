"""What a request got, kept as sums while its tokens come, is what a list of them all would say."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.simulation.request_metrics import (
    ARRIVES,
    CHANGED,
    CHANGES_AT,
    FIRST,
    LAST,
    LATER_PACE,
    PACE,
    SLOW_WINDOWS,
    TOKENS,
    TTFT,
    WORST_LATE,
    RequestMetrics,
    give,
    new_request_metrics,
)

times = st.integers(0, 2000).map(lambda ticks: ticks / 1024)  # sums of these are exact
paces = st.integers(1, 200).map(lambda ticks: ticks / 1024)


@st.composite
def stories(draw: st.DrawFn) -> tuple[RequestMetrics, list[float]]:
    """A request and the times of all its tokens, of which some come at once."""
    request = new_request_metrics(1)[0]
    request[ARRIVES], request[TTFT] = draw(times), draw(st.one_of(times, st.just(math.inf)))
    request[PACE], request[LATER_PACE] = draw(paces), draw(paces)
    request[CHANGES_AT] = draw(st.integers(1, 30))
    now, came_s = float(request[ARRIVES]), []
    for gap_s in draw(st.lists(times, min_size=1, max_size=25)):
        now += gap_s
        count = draw(st.integers(1, 4))
        give(request, count, now)
        came_s += [now] * count
    return request, came_s


def due_s(request: RequestMetrics, number: int) -> float:
    """Of token `number`, counted from 0: a pace of its own stage after the one before."""
    due = request[ARRIVES] + request[TTFT]
    for token in range(1, number + 1):
        due += request[PACE] if token < request[CHANGES_AT] else request[LATER_PACE]
    return float(due)


@given(stories())
def test_times_and_counts_are_those_of_the_tokens(
    story: tuple[RequestMetrics, list[float]],
) -> None:
    request, came_s = story

    assert (request[FIRST], request[LAST], request[TOKENS]) == (came_s[0], came_s[-1], len(came_s))
    changes_at = int(request[CHANGES_AT])
    if changes_at <= len(came_s):
        assert request[CHANGED] == came_s[changes_at - 1]
    else:
        assert math.isnan(request[CHANGED])


@given(stories())
def test_the_worst_lateness_is_that_of_any_token_against_its_deadline(
    story: tuple[RequestMetrics, list[float]],
) -> None:
    request, came_s = story

    late_s = [came - due_s(request, number) for number, came in enumerate(came_s)]
    assert request[WORST_LATE] == pytest.approx(max(late_s), abs=1e-9)


@given(stories())
def test_a_slow_window_is_ten_tokens_that_take_longer_than_ten_paces(
    story: tuple[RequestMetrics, list[float]],
) -> None:
    request, came_s = story

    request[TTFT] = 0.0  # only differences of due times count
    slow = [
        start
        for start in range(0, len(came_s) - 10, 10)
        if came_s[start + 10] - came_s[start]
        > due_s(request, start + 10) - due_s(request, start) + 1e-9
    ]
    assert request[SLOW_WINDOWS] == len(slow)
