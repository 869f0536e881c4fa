"""What is owed to a promise whose first token came, or will come, too late."""

import numpy as np
import pytest

from shared.scheduling.expired import settle_expired
from shared.scheduling.former import StepFormer, StepPlan
from shared.scheduling.rows import (
    BEST_EFFORT,
    COMPUTED,
    DEADLINE,
    EXPIRED,
    GENERATED,
    KIND,
    PROMISED,
    RESIDENT,
    Rows,
    new_row,
)
from shared.scheduling.shares import EVICT, FREE_BLOCKS
from tests.unit.shared.scheduling.loads import TABLES

TABLE = TABLES[0]
TTFT_S = 0.3
PROMPT = 500


def lost(*, produced: float = 0.0, came_s: float = 0.0) -> Rows:
    """One that was due `TTFT_S` after it came."""
    row = new_row(
        tokens=PROMPT,
        produced=produced,
        left=50,
        due_s=came_s + TTFT_S,
        tpot_s=0.05,
        kind=EXPIRED,
        available_s=came_s,
    )
    return row[None]


def formed(rows: Rows, now: float, *, free_blocks: float = 1e6) -> StepPlan:
    former = StepFormer(TABLE, max_tokens=1024, block_tokens=16, max_resident=64)
    for row in rows:
        former.add(row)
    former.limits[FREE_BLOCKS] = free_blocks
    return former.form(now)


def test_from_its_first_token_on_it_is_held_to_its_pace_again() -> None:
    rows = lost(produced=1)

    assert settle_expired(rows, TABLE.numbers, 0.4) == 0
    assert rows[0, KIND] == PROMISED


def test_its_first_token_is_owed_again_within_two_seconds_of_the_promised_time() -> None:
    rows = lost()

    settle_expired(rows, TABLE.numbers, TTFT_S + 1.9)
    assert rows[0, KIND] == EXPIRED

    settle_expired(rows, TABLE.numbers, TTFT_S + 2.0)
    assert rows[0, KIND] == PROMISED
    assert TTFT_S + 2.0 < rows[0, DEADLINE] < TTFT_S + 3.0


def test_whoever_was_lost_again_waits_for_longer() -> None:
    rows, now = lost(), 0.0
    turns: list[float] = []
    while len(turns) < 4:
        before = rows[0, KIND]
        settle_expired(rows, TABLE.numbers, now)
        if before == EXPIRED and rows[0, KIND] == PROMISED:
            turns.append(now)
        now += 0.05
    waits = np.diff([0.0, *turns])
    assert (np.diff(waits) > 0).all()


def test_its_turn_comes_although_promises_fill_every_step() -> None:
    """Each step has prompts enough that are due and could be on time."""
    rows, now = lost(), TTFT_S + 0.1
    while rows[0, COMPUTED] < PROMPT:
        others = np.vstack([new_row(tokens=900, left=9, due_s=now + 0.4) for _ in range(4)])
        everybody = np.vstack([rows, others])
        plan = formed(everybody, now)
        settle_expired(rows, TABLE.numbers, now)
        rows[0, COMPUTED] += max(0, plan.tokens[0])
        rows[0, RESIDENT] = 1.0
        now += plan.sure_s
        assert now < TTFT_S + 3.5
    assert now > TTFT_S + 2.0


@pytest.mark.parametrize("lost_first", [True, False])
def test_best_effort_makes_room_before_what_is_owed(lost_first: bool) -> None:
    owed = lost()
    owed[0, GENERATED], owed[0, COMPUTED] = 0, PROMPT - 100
    other = owed.copy()
    other[0, KIND] = BEST_EFFORT
    held = [owed, other] if lost_first else [other, owed]
    for row in held:
        row[0, RESIDENT] = 1.0
    promised = new_row(tokens=100, left=9, due_s=5.0, available_s=0.0)[None]

    plan = formed(np.vstack([*held, promised]), TTFT_S + 0.1, free_blocks=0)

    place = 1 if lost_first else 0
    assert plan.tokens[place] == EVICT
    assert plan.tokens[1 - place] != EVICT
    assert plan.tokens[2] == 100
