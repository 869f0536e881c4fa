import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.longest_step import RecentPrompts, longest_step_s, prompt_waits
from shared.batch_time import PAPER, Step, StepCurve, StepTable
from shared.batch_time.table import FloatArray

TOKEN_S = 1e-4
TABLE = StepTable.of(StepCurve(form=PAPER, coefficients=(0.02, TOKEN_S, 0.0) * 2))
FIXED_S = TABLE.sure_s(Step(decodes=1))
FINE = 1.1  # the lengths that are tried lie closer than this


def own_s(tokens: int) -> float:
    return max(FIXED_S, TABLE.sure_s(Step(chunks=1, prefill_tokens=tokens)))


def prompts(*rows: tuple[float, float, int]) -> FloatArray:
    """Of weight, TTFT in steps of one decode beyond the prompt's own time alone, and tokens."""
    return np.array(
        [(weight, FIXED_S * slack + own_s(tokens), 0.0, tokens) for weight, slack, tokens in rows]
    )


def kept(step_s: float, asked: FloatArray) -> float:
    """The share of time for prompts times the share of them in time, over even arrivals."""
    waits = (np.arange(1000) + 0.5) / 1000 * step_s
    met = 0.0
    for weight, ttft_s, _, tokens in asked:
        takes_s = own_s(tokens)
        if takes_s > step_s:
            takes_s = (takes_s - FIXED_S) / (1 - FIXED_S / step_s)
        met += weight * float(np.mean(waits + takes_s <= ttft_s))
    return met * (1 - FIXED_S / step_s)


ROWS = st.tuples(st.floats(0.1, 5), st.floats(0.1, 100), st.integers(1, 8000))


@given(rows=st.lists(ROWS, min_size=1, max_size=6))
def test_no_other_length_keeps_more_promises_per_second(
    rows: list[tuple[float, float, int]],
) -> None:
    asked = prompts(*rows)

    best_s = longest_step_s(TABLE, asked)

    others = FIXED_S * np.geomspace(2, 60, 60)
    most = max(kept(step_s, asked) for step_s in others)
    assert kept(best_s, asked) >= 0.9 * most - 0.01  # lengths are tried in steps of 9 %


@given(rows=st.lists(ROWS, max_size=6))
def test_a_prompt_waits_for_what_its_own_step_leaves_of_its_target(
    rows: list[tuple[float, float, int]],
) -> None:
    found = prompt_waits(TABLE, prompts(*rows).reshape(-1, 4))

    alone_s = [TABLE.sure_s(Step(chunks=1, prefill_tokens=tokens)) for _, _, tokens in rows]
    waits_s = [FIXED_S * slack + own_s(tokens) for _, slack, tokens in rows]
    assert found == pytest.approx(
        np.array(
            [(row[0], w - a) for row, w, a in zip(rows, waits_s, alone_s, strict=True)]
        ).reshape(-1, 2)
    )


@given(slack=st.floats(2, 60), number=st.integers(1, 20))
def test_a_step_is_as_long_as_prompts_that_are_alike_can_wait(slack: float, number: int) -> None:
    asked = prompts(*[(1.0, slack, 1)] * number)

    assert FIXED_S * slack / FINE <= longest_step_s(TABLE, asked) <= FIXED_S * slack * FINE


@given(slack=st.floats(0.01, 2))
def test_a_step_is_never_shorter_than_two_of_one_decode(slack: float) -> None:
    assert longest_step_s(TABLE, prompts((1.0, slack, 1))) == pytest.approx(2 * FIXED_S)


def test_few_tight_prompts_do_not_shorten_the_steps_of_many_loose_ones() -> None:
    tight, loose = (0.02, 2.0, 10), (0.98, 50.0, 10)

    assert longest_step_s(TABLE, prompts(tight, loose)) > 30 * FIXED_S


@pytest.mark.parametrize("rows", [[], [(1.0, -1.0, 10)], [(1.0, 5.0, 8000)]])
def test_steps_have_no_limit_where_none_helps(rows: list[tuple[float, float, int]]) -> None:
    """No targets, one that is over at once, and one that needs a step of its own."""
    asked = prompts(*rows).reshape(-1, 4)
    if rows and rows[0][1] > 0:
        asked[:, 1] = TABLE.sure_s(Step(prefill_tokens=1))

    assert longest_step_s(TABLE, asked) == 0


def test_steps_have_no_limit_where_their_times_are_unknown() -> None:
    """As on an engine that has just started and has no profile."""
    unknown = StepTable.of(StepCurve(form=PAPER, coefficients=(0.0,) * 6))

    assert longest_step_s(unknown, prompts((1.0, 5.0, 100))) == 0


def test_cached_tokens_leave_more_time_to_wait() -> None:
    whole, cached = np.array([[1.0, 0.5, 0.0, 4000.0]]), np.array([[1.0, 0.5, 3000.0, 1000.0]])

    assert longest_step_s(TABLE, cached) > longest_step_s(TABLE, whole)


# ---- which prompts count


def test_a_class_that_asks_seldom_weighs_as_much_as_one_that_asks_in_bursts() -> None:
    recent = RecentPrompts()
    recent.note("seldom", 0.1, 0, 10, 0.0)
    for number in range(200):
        recent.note("often", 2.0, 0, 10, number / 100)

    rows = recent.rows(2.0)

    weights = {ttft_s: rows[rows[:, 1] == ttft_s, 0].sum() for ttft_s in (0.1, 2.0)}
    assert weights == pytest.approx({0.1: 1.0, 2.0: 1.0})


def test_prompts_of_the_last_minute_count() -> None:
    recent = RecentPrompts()
    recent.note("a", 0.1, 0, 10, 0.0)
    recent.note("a", 0.2, 0, 10, 40.0)

    assert recent.rows(59.0)[:, 1].tolist() == [0.1, 0.2]
    assert recent.rows(61.0)[:, 1].tolist() == [0.2]
    assert recent.rows(101.0).shape == (0, 4)


def test_the_number_of_prompts_is_bounded() -> None:
    recent = RecentPrompts()
    for number in range(10_000):
        recent.note(f"class {number % 500}", 1.0, 0, 10, 0.0)

    assert len(recent.rows(0.0)) <= 64 * 32
