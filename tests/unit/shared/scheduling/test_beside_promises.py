"""What a step has time for beside the decodes that were promised a pace."""

import random

import numpy as np
import pytest

from shared.batch_time import StepTable
from shared.batch_time.table import COUNTS, DECODES, FloatArray, sure_s
from shared.scheduling.kernel import form
from shared.scheduling.rows import (
    BEST_EFFORT,
    DEADLINE,
    KIND,
    NO_SLO,
    PROMISED,
    RESIDENT,
    TPOT,
    Rows,
    new_row,
)
from shared.scheduling.shares import FREE_BLOCKS, Tokens, add_decode
from tests.unit.shared.scheduling.loads import TABLES
from tests.unit.shared.scheduling.loads import limits as drawn_limits

TABLE = TABLES[0]
MARGINS = slice(2, 5)  # of a table's numbers
PACE_S = 0.05
GAIN = 2.2


def decode(
    due_s: float, *, draft: float = 0.0, gain: float = 1.0, grace_s: float = 0.0
) -> FloatArray:
    row = new_row(
        tokens=500,
        computed=499,
        produced=3,
        left=100,
        due_s=due_s,
        tpot_s=PACE_S,
        grace_s=grace_s,
        draft=draft,
        gain=gain,
    )
    row[RESIDENT] = 1.0
    return row


def step(
    rows: Rows, free_blocks: float = 1e6, longest_s: float = 0.0, table: StepTable = TABLE
) -> tuple[Tokens, FloatArray, float]:
    bounds = drawn_limits(random.Random(1), max_tokens=8192, max_resident=4096, longest_s=longest_s)
    bounds[FREE_BLOCKS] = free_blocks
    tokens, counts = np.zeros(len(rows), dtype=np.int64), np.zeros(COUNTS)
    return tokens, counts, form(rows, tokens, counts, table.numbers, bounds, 0.0)


def back_s(pace_s: float) -> float:
    """Four fifths of the way from a step of one decode to the pace."""
    alone = np.zeros(COUNTS)
    alone[DECODES] = 1.0
    least_s = sure_s(TABLE.numbers, alone)
    return float(least_s + 0.8 * (pace_s - least_s))


def test_a_late_decode_leaves_prompts_most_of_what_its_pace_leaves_however_tight_it_is() -> None:
    """Steps of 0.8 of such a pace would be shorter than the decode alone."""
    least_s = back_s(0.0) / 0.2
    pace_s = 1.2 * least_s
    prompt = new_row(tokens=2000, left=50, due_s=9.0, tpot_s=pace_s)
    late = new_row(
        tokens=101, computed=100, produced=5, left=50, due_s=-0.001, tpot_s=pace_s, kind=PROMISED
    )

    tokens, _, lasts_s = step(np.array([late, prompt]))

    assert tokens[0] == 1
    assert tokens[1] > 0
    assert lasts_s <= back_s(pace_s) + 1e-9


@pytest.mark.parametrize("due_s", [-0.02, 0.01, 0.03])
def test_poor_luck_with_drafts_leaves_prompts_the_steps_that_bring_it_back(due_s: float) -> None:
    prompt = new_row(tokens=2000, left=50, due_s=0.5, tpot_s=PACE_S)

    unlucky = decode(due_s, draft=4, gain=GAIN, grace_s=GAIN * PACE_S)

    tokens, _, lasts_s = step(np.array([unlucky, prompt]))

    assert tokens[0] == 5
    assert tokens[1] > 500
    assert PACE_S < lasts_s <= back_s(PACE_S * GAIN) + 1e-9


@pytest.mark.parametrize("grace_s", [0.0, 0.01, 0.02])
def test_a_step_with_drafts_lasts_no_longer_than_the_likely_shortest_answer_makes_up_for(
    grace_s: float,
) -> None:
    prompt = new_row(tokens=2000, left=50, due_s=0.5, tpot_s=PACE_S)
    fresh = decode(PACE_S + grace_s, draft=4, gain=GAIN, grace_s=grace_s)

    tokens, _, lasts_s = step(np.array([fresh, prompt]))

    assert tokens[0] == 5
    assert tokens[1] > 0
    assert PACE_S / 2 < lasts_s <= PACE_S + grace_s + 1e-9
    assert PACE_S + grace_s < back_s(PACE_S * GAIN)


def test_a_pace_that_no_step_of_its_own_can_keep_is_left_to_luck() -> None:
    alone_s = step(np.array([decode(5.0, draft=4, gain=GAIN)]))[2]
    tight = decode(0.999 * alone_s, draft=4, gain=GAIN)
    tight[TPOT] = 0.999 * alone_s
    prompt = new_row(tokens=2000, left=50, due_s=0.5, tpot_s=PACE_S)

    tokens, _, lasts_s = step(np.array([tight, prompt]))

    assert tokens[0] == 5
    assert tokens[1] > 0
    assert alone_s < lasts_s <= back_s(tight[TPOT] * GAIN) + 1e-9


def test_without_drafts_a_token_that_can_be_on_time_is() -> None:
    prompt = new_row(tokens=2000, left=50, due_s=0.5, tpot_s=PACE_S)

    tokens, _, lasts_s = step(np.array([decode(0.03), prompt]))

    assert tokens[0] == 1
    assert lasts_s <= 0.03


@pytest.mark.parametrize("times_alone", [2.2, 3.0])
def test_decodes_that_can_wait_share_a_step_as_far_as_its_prompt_ends_in_time(
    times_alone: float,
) -> None:
    prompt = new_row(tokens=100, left=50, due_s=9.0, tpot_s=PACE_S)
    due_s = times_alone * step(prompt[None])[2]
    prompt[DEADLINE] = due_s
    decodes = np.vstack([decode(5.0)] * 3000)
    assert step(decodes)[2] > due_s

    tokens, _, lasts_s = step(np.vstack([decodes, prompt]), longest_s=0.5)

    assert tokens[-1] == 100
    assert lasts_s <= due_s
    assert tokens.sum() > 200


@pytest.mark.parametrize("margin", [1.0, 1.2])
@pytest.mark.parametrize(("due_s", "second_step"), [(0.12, False), (0.2, True)])
def test_only_a_prompt_without_time_for_a_second_step_makes_this_one_longer_than_the_policy_says(
    margin: float, due_s: float, second_step: bool
) -> None:
    table = TABLE.slower(1.0)
    table.numbers[MARGINS] = margin
    prompt = new_row(tokens=400, left=50, due_s=due_s, tpot_s=PACE_S)
    decodes = np.vstack([decode(5.0)] * 600)
    longest_s = 0.08 * margin

    tokens, _, lasts_s = step(np.vstack([decodes, prompt]), longest_s=longest_s, table=table)

    assert bool(tokens[-1] == 400) is not second_step
    assert bool(lasts_s <= longest_s) is second_step
    assert lasts_s <= due_s
    assert tokens[:-1].sum() > 100


@pytest.mark.parametrize(("late_paces", "saved"), [(0.45, True), (0.55, False)])
def test_a_prompt_that_would_be_lost_makes_decodes_half_a_pace_late_at_most(
    late_paces: float, saved: bool
) -> None:
    prompt = new_row(tokens=2000, left=50, due_s=9.0, tpot_s=PACE_S)
    takes_s = step(np.array([decode(5.0), prompt]))[2]
    prompt[DEADLINE] = 1.02 * takes_s
    due_s = takes_s - late_paces * PACE_S

    tokens, _, lasts_s = step(np.array([decode(due_s), prompt]))

    assert tokens[0] == 1
    assert bool(tokens[1] == 2000) is saved
    assert bool(lasts_s > due_s) is saved


def test_no_decode_with_a_deadline_for_each_token_is_late_for_a_prompt_that_would_be_lost() -> None:
    prompt = new_row(tokens=2000, left=50, due_s=9.0, tpot_s=PACE_S)
    takes_s = step(np.array([decode(5.0), prompt]))[2]
    prompt[DEADLINE] = 1.02 * takes_s
    due_s = takes_s - 0.1 * PACE_S

    by_mean, _, _ = step(np.array([decode(due_s), prompt]))
    by_deadlines, _, lasts_s = step(np.array([decode(due_s, grace_s=np.inf), prompt]))

    assert by_mean.tolist() == [1, 2000]
    assert by_deadlines[0] == 1
    assert lasts_s <= due_s


def test_no_decode_is_late_for_a_prompt_that_can_be_on_time_after_it() -> None:
    prompt = new_row(tokens=2000, left=50, due_s=0.5, tpot_s=PACE_S)

    tokens, _, lasts_s = step(np.array([decode(0.045), prompt]))

    assert 0 < tokens[1] < 2000
    assert lasts_s <= 0.045


def test_best_effort_gets_more_of_a_step_where_kv_is_free_than_where_it_is_short() -> None:
    rows = np.array([decode(0.5), new_row(tokens=2000, left=50, kind=BEST_EFFORT)])
    eight = np.vstack([rows[:1]] * 8)

    alone_s, in_room_s = step(rows[:1])[2], step(rows)[2]
    eight_s, short_s = step(eight)[2], step(np.vstack([eight, rows[1:]]), free_blocks=150)[2]

    assert 1.05 * alone_s < in_room_s <= 1.15 * alone_s
    assert eight_s < short_s <= 1.02 * eight_s


@pytest.mark.parametrize("kind", [NO_SLO, BEST_EFFORT])
def test_without_a_promise_nothing_keeps_decodes_from_getting_four_paces_ahead(kind: float) -> None:
    """A prompt in a hurry ends in this step, so that steps could be as long as decodes can wait."""
    hurried = new_row(tokens=100, left=50, due_s=0.08, tpot_s=PACE_S)
    other = new_row(tokens=8000, left=50, due_s=9.0, tpot_s=PACE_S, kind=kind)

    behind_s = step(np.array([decode(2 * PACE_S), hurried, other]))[2]
    tokens, _, ahead_s = step(np.array([decode(6 * PACE_S), hurried, other]))

    assert behind_s <= back_s(PACE_S) + 1e-9 < ahead_s
    assert tokens[2] > 0


def test_no_prompt_overtakes_one_that_has_no_room() -> None:
    """What comes later would take the blocks that the first one waits for."""
    running = decode(0.5)
    first = new_row(tokens=800, left=50, due_s=1.0, tpot_s=PACE_S)
    later = new_row(tokens=160, left=50, due_s=2.0, tpot_s=PACE_S)

    tokens = step(np.array([running, first, later]), free_blocks=40)[0]
    alone = step(np.array([running, later]), free_blocks=40)[0]

    assert tokens.tolist() == [1, 0, 0]
    assert alone.tolist() == [1, 160]


@pytest.mark.parametrize("draft", [0.0, 3.0])
def test_as_many_decodes_share_a_step_as_fit_and_no_more(draft: float) -> None:
    """One cannot wait and bounds the step."""
    urgent = decode(0.04)
    ahead = np.vstack([decode(0.4 + 0.01 * one, draft=draft) for one in range(900)])

    tokens, counts, lasts_s = step(np.vstack([ahead, urgent]))
    add_decode(counts, ahead, int(np.argmin(tokens)))

    assert 0 < (tokens > 0).sum() < len(tokens)
    assert lasts_s <= 0.04 < sure_s(TABLE.numbers, counts)


def test_best_effort_shares_every_step_with_what_asked_for_nothing() -> None:
    running = new_row(tokens=500, computed=499, produced=3, left=100, kind=BEST_EFFORT)
    running[RESIDENT] = 1.0
    plain = running.copy()
    plain[KIND] = NO_SLO
    prompt = new_row(tokens=2000, left=50, kind=BEST_EFFORT)

    tokens = step(np.array([plain] * 2 + [running] * 30 + [prompt]))[0]

    assert tokens.tolist() == [1] * 32 + [2000]


@pytest.mark.parametrize("order", [1, -1])
def test_where_time_is_short_who_is_least_ahead_of_its_pace_decodes(order: int) -> None:
    """One of them cannot wait, so the step is too short for all."""
    ahead = np.vstack([decode(0.4 + 0.01 * one) for one in range(2000)][::order])
    alone_s = step(ahead[:1])[2]
    assert step(ahead)[2] > 1.5 * alone_s

    tokens, _, lasts_s = step(np.vstack([ahead, decode(1.2 * alone_s)]))

    decoded = ahead[tokens[:-1] > 0, DEADLINE]
    assert tokens[-1] == 1
    assert lasts_s <= max(1.2 * alone_s, back_s(PACE_S)) + 1e-9
    assert 0 < len(decoded) < len(ahead)
    assert decoded.max() < ahead[tokens[:-1] == 0, DEADLINE].min()


def test_a_prompt_that_ends_in_a_step_waits_for_others_up_to_four_steps_without_prompts() -> None:
    decodes = np.array([decode(20.0) for _ in range(40)])
    short = new_row(tokens=100, left=50, due_s=9.0, tpot_s=PACE_S)
    long = new_row(tokens=8000, left=50, due_s=19.0, tpot_s=PACE_S)
    alone_s = step(decodes)[2]

    tokens, _, lasts_s = step(np.vstack([decodes, short, long]))
    whole_s = step(np.vstack([decodes, long]))[2]

    assert tokens[-2] == 100
    assert 2 * alone_s < lasts_s <= 4 * alone_s + 1e-9 < whole_s
