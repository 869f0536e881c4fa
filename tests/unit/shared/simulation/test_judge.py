"""Rules and causes, against what somebody would say who looks at one request after the other."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.simulation.judge import Cause, Rule, causes, kept, share_of
from shared.simulation.lives import (
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
    Lives,
    give,
    new_lives,
)

_PACE_S, _LATER_S, _TTFT_S = 0.1, 0.3, 1.0


def life_of(came_s: list[float], *, admission: int, output: int, changes_at: int) -> Lives:
    """One that arrived at 0, with its tokens at these times."""
    life: Lives = new_lives(1)[0]
    life[ARRIVES], life[TTFT], life[OUTPUT] = 0.0, _TTFT_S, output
    life[PACE], life[LATER_PACE], life[CHANGES_AT] = _PACE_S, _LATER_S, changes_at
    life[ADMISSION], life[PLACED], life[STARTED] = admission, 0.1, 0.2
    for now in came_s:
        give(life, 1, now)
    return life


@st.composite
def stories(draw: st.DrawFn) -> tuple[Lives, list[float]]:
    gaps_s = draw(st.lists(st.floats(0.0, 0.5), max_size=25))
    came_s = np.cumsum([draw(st.floats(0.0, 2.0)), *gaps_s]).tolist()
    came_s = draw(st.sampled_from([came_s, []]))
    life = life_of(
        came_s,
        admission=draw(st.integers(UNDECIDED, NEVER_CAME)),
        output=len(came_s) + draw(st.integers(0 if came_s else 1, 1)),
        changes_at=draw(st.integers(1, 30)),
    )
    return life, came_s


def is_kept(life: Lives, came_s: list[float]) -> bool:
    """By the mean of each stage."""
    served = life[ADMISSION] in (ADMITTED, BEST_EFFORT)
    if not served or len(came_s) < life[OUTPUT] or came_s[0] > _TTFT_S + 1e-6:
        return False
    stages = (
        (came_s[: int(life[CHANGES_AT])], _PACE_S),
        (
            came_s[int(life[CHANGES_AT]) - 1 :],
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
    many: list[tuple[tuple[Lives, list[float]], bool]],
) -> None:
    lives = np.array([life for (life, _), _ in many])
    lives[:, BY_DEADLINES] = [by_deadlines for _, by_deadlines in many]

    asked = kept(lives, Rule.ASKED)

    rules = [Rule.DEADLINES if by_deadlines else Rule.MEAN for _, by_deadlines in many]
    assert asked.tolist() == [kept(lives, rule)[i] for i, rule in enumerate(rules)]
    assert sum(causes(lives).values()) == (~asked).sum()


@given(st.lists(stories(), min_size=1, max_size=10))
def test_kept_is_what_looking_at_each_says(many: list[tuple[Lives, list[float]]]) -> None:
    lives = np.array([life for life, _ in many])

    assert kept(lives, Rule.MEAN).tolist() == [is_kept(life, came_s) for life, came_s in many]


@given(st.lists(stories(), min_size=1, max_size=10))
def test_everybody_who_missed_has_one_cause(many: list[tuple[Lives, list[float]]]) -> None:
    lives = np.array([life for life, _ in many])

    share = share_of("all", lives)
    assert sum(causes(lives).values()) == share.requests - share.kept[Rule.MEAN]


@given(stories())
def test_whoever_keeps_every_deadline_had_its_first_token_in_time(
    story: tuple[Lives, list[float]],
) -> None:
    life, came_s = story

    if kept(life[None], Rule.DEADLINES)[0]:
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
    life = life_of(came_s, admission=admission, output=2, changes_at=2)

    assert causes(life[None]) == {cause: 1}


def test_times_of_nobody_are_not_known() -> None:
    share = share_of("all", new_lives(1))

    assert math.isnan(share.ttft_s[0])
    assert share.attained() == 0.0
