"""Rules and causes, against a check of one request after the other."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.simulation.judge import Cause, Rule, causes, kept, share_of
from shared.simulation.request_metrics import (
    ADMISSION,
    ADMITTED,
    ARRIVES,
    BEST_EFFORT,
    BY_DEADLINES,
    CHANGES_AT,
    LATER_PACE,
    NEVER_CAME,
    OUTPUT,
    PACE,
    PLACED,
    STARTED,
    TTFT,
    UNDECIDED,
    RequestMetrics,
    give,
    new_request_metrics,
)

_PACE_S, _LATER_S, _TTFT_S = 0.1, 0.3, 1.0


def metrics_of(
    came_s: list[float], *, admission: int, output: int, changes_at: int
) -> RequestMetrics:
    """One that arrived at 0, with its tokens at these times."""
    request: RequestMetrics = new_request_metrics(1)[0]
    request[ARRIVES], request[TTFT], request[OUTPUT] = 0.0, _TTFT_S, output
    request[PACE], request[LATER_PACE], request[CHANGES_AT] = _PACE_S, _LATER_S, changes_at
    request[ADMISSION], request[PLACED], request[STARTED] = admission, 0.1, 0.2
    for now in came_s:
        give(request, 1, now)
    return request


@st.composite
def stories(draw: st.DrawFn) -> tuple[RequestMetrics, list[float]]:
    gaps_s = draw(st.lists(st.floats(0.0, 0.5), max_size=25))
    came_s = np.cumsum([draw(st.floats(0.0, 2.0)), *gaps_s]).tolist()
    came_s = draw(st.sampled_from([came_s, []]))
    request = metrics_of(
        came_s,
        admission=draw(st.integers(UNDECIDED, NEVER_CAME)),
        output=len(came_s) + draw(st.integers(0 if came_s else 1, 1)),
        changes_at=draw(st.integers(1, 30)),
    )
    return request, came_s


def is_kept(request: RequestMetrics, came_s: list[float]) -> bool:
    """By the mean of each stage."""
    served = request[ADMISSION] in (ADMITTED, BEST_EFFORT)
    if not served or len(came_s) < request[OUTPUT] or came_s[0] > _TTFT_S + 1e-6:
        return False
    stages = (
        (came_s[: int(request[CHANGES_AT])], _PACE_S),
        (
            came_s[int(request[CHANGES_AT]) - 1 :],
            _LATER_S,
        ),
    )
    means = [
        (times[-1] - times[0]) / (len(times) - 1) / pace_s
        for times, pace_s in stages
        if len(times) > 1
    ]
    return all(mean <= 1 + 1e-6 for mean in means)


@given(st.lists(st.tuples(stories(), st.booleans()), min_size=1, max_size=10))
def test_each_is_judged_by_what_it_asked_for(
    many: list[tuple[tuple[RequestMetrics, list[float]], bool]],
) -> None:
    metrics = np.array([request for (request, _), _ in many])
    metrics[:, BY_DEADLINES] = [by_deadlines for _, by_deadlines in many]

    asked = kept(metrics, Rule.ASKED)

    rules = [Rule.DEADLINES if by_deadlines else Rule.MEAN for _, by_deadlines in many]
    assert asked.tolist() == [kept(metrics, rule)[i] for i, rule in enumerate(rules)]
    assert sum(causes(metrics).values()) == (~asked).sum()


@given(st.lists(stories(), min_size=1, max_size=10))
def test_kept_is_what_looking_at_each_says(many: list[tuple[RequestMetrics, list[float]]]) -> None:
    metrics = np.array([request for request, _ in many])

    assert kept(metrics, Rule.MEAN).tolist() == [
        is_kept(request, came_s) for request, came_s in many
    ]


@given(stories())
def test_without_a_ttft_target_deadlines_are_judged_by_the_mean(
    story: tuple[RequestMetrics, list[float]],
) -> None:
    metrics = story[0][None].copy()
    metrics[:, TTFT], metrics[:, BY_DEADLINES] = math.inf, 1.0

    assert kept(metrics, Rule.ASKED) == kept(metrics, Rule.MEAN)


@given(st.lists(stories(), min_size=1, max_size=10))
def test_each_missed_request_has_one_cause(many: list[tuple[RequestMetrics, list[float]]]) -> None:
    metrics = np.array([request for request, _ in many])

    share = share_of("all", metrics)
    assert sum(causes(metrics).values()) == share.requests - share.kept[Rule.MEAN]


@given(stories())
def test_a_request_that_keeps_every_deadline_had_its_first_token_in_time(
    story: tuple[RequestMetrics, list[float]],
) -> None:
    request, came_s = story

    if kept(request[None], Rule.DEADLINES)[0]:
        assert came_s[0] <= _TTFT_S + 1e-6


@pytest.mark.parametrize(
    ("admission", "came_s", "cause"),
    [
        (UNDECIDED, [], Cause.HELD),
        (NEVER_CAME, [], Cause.NEVER_CAME),
        (ADMITTED, [0.5], Cause.UNFINISHED),
        (ADMITTED, [0.5, 0.9], Cause.DECODE),
        (ADMITTED, [1.5, 1.6], Cause.PREFILL),
    ],
)
def test_a_miss_is_put_down_to_what_took_longest(
    admission: int, came_s: list[float], cause: Cause
) -> None:
    request = metrics_of(came_s, admission=admission, output=2, changes_at=2)

    assert causes(request[None]) == {cause: 1}


def test_times_of_no_request_are_not_known() -> None:
    share = share_of("all", new_request_metrics(1))

    assert math.isnan(share.ttft_s[0])
    assert share.attained() == 0.0
