"""Where a simulation ends, and what it says of those whom it ends for."""

import math

import numpy as np
import pytest

from shared.scheduling.former import engine_limits
from shared.scheduling.rows import BEST_EFFORT, GRACE, KIND, RESIDENT, TPOT, Rows, new_row
from shared.scheduling.simulate import simulate
from tests.unit.shared.scheduling.loads import TABLES

LIMITS = engine_limits(max_tokens=512, block_tokens=16, max_resident=64)


def decoding(due_s: float, *, tpot_s: float = 0.1, left: int = 100) -> Rows:
    row = new_row(tokens=101, computed=100, produced=1, left=left, due_s=due_s, tpot_s=tpot_s)
    row[RESIDENT] = 1
    return row[None]


def prompt(tokens: int, due_s: float) -> Rows:
    return new_row(tokens=tokens, left=50, due_s=due_s, tpot_s=0.5)[None]


def test_whoever_ends_a_simulation_by_waiting_for_a_token_is_late() -> None:
    rows = np.vstack([decoding(0.2), decoding(0.011, tpot_s=0.011), prompt(4000, 60.0)])

    forecast = simulate(rows, TABLES[0], LIMITS, 0.0, guarded=np.array([True, True, True]))

    assert forecast.late(rows).any()
    assert math.isfinite(forecast.ended_s)


def test_one_that_has_all_its_tokens_is_not_late_for_the_next() -> None:
    rows = np.vstack([decoding(0.2, left=2), prompt(3000, 60.0)])

    forecast = simulate(rows, TABLES[0], LIMITS, 0.0, guarded=np.array([True, True]))

    assert not forecast.late(rows).any()
    assert math.isfinite(forecast.first_s[1])


def test_a_simulation_that_nobody_ends_gives_every_prompt_its_first_token() -> None:
    rows = np.vstack([decoding(1.0, tpot_s=0.5), prompt(3000, 60.0), prompt(100, 60.0)])

    forecast = simulate(rows, TABLES[0], LIMITS, 0.0, guarded=np.ones(3, dtype=np.bool_))

    assert np.isfinite(forecast.first_s).all()
    assert forecast.first_s[1] == pytest.approx(forecast.ended_s, abs=1.0)


def test_by_deadlines_an_answer_that_begins_early_may_slow_down() -> None:
    """Which the same answer may not by its mean: its second token would be late."""
    early = prompt(100, due_s=2.0)
    early[:, TPOT], early[:, GRACE] = 0.05, math.inf
    by_mean = early.copy()
    by_mean[:, GRACE] = 0.0
    beside = prompt(3000, due_s=2.0)

    late = [
        simulate(np.vstack([one, beside]), TABLES[0], LIMITS, 0.0).worst_late_s[0]
        for one in (early, by_mean)
    ]

    assert late[0] < -1.0
    assert late[1] > late[0] + 1.0


def test_a_simulation_ends_once_the_prompt_that_it_waits_for_is_late() -> None:
    """It runs after promised prompts, which need far longer."""
    rows = np.vstack([*(prompt(4000, 600.0) for _ in range(20)), prompt(4000, 2.0)])
    rows[-1, KIND] = BEST_EFFORT

    whole = simulate(rows, TABLES[0], LIMITS, 0.0)
    until_late = simulate(rows, TABLES[0], LIMITS, 0.0, awaited=20)

    assert not whole.first_s[20] <= 2.0
    assert until_late.first_s[20] == math.inf
    assert until_late.ended_s <= 2.0 < whole.ended_s


def test_a_simulation_goes_on_until_the_prompt_that_it_waits_for_has_its_first_token() -> None:
    rows = np.vstack([prompt(100, 60.0), prompt(4000, 60.0)])
    rows[-1, KIND] = BEST_EFFORT

    forecast = simulate(rows, TABLES[0], LIMITS, 0.0, awaited=1)

    assert forecast.first_s[0] < forecast.first_s[1] <= forecast.ended_s
