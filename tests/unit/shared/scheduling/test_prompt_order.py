"""Laws of the order of prompts, beside all orders and subsets of a few."""

import itertools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.batch_time.table import COUNTS, expected_s
from shared.scheduling.prompt_order import order_prompts
from shared.scheduling.prompt_times import prompt_s
from shared.scheduling.rows import COMPUTED, DEADLINE, Rows, new_row
from tests.unit.shared.scheduling.loads import TABLES

TABLE = TABLES[1].numbers
SHARED_S = expected_s(TABLE, np.zeros(COUNTS))
PROMPTS = st.lists(
    st.tuples(st.integers(10, 3000), st.floats(0.05, 0.6) | st.just(math.inf)),
    min_size=1,
    max_size=7,
).map(lambda drawn: np.array([new_row(tokens=n, left=9, due_s=due_s) for n, due_s in drawn]))


def ordered(rows: Rows) -> tuple[list[int], float, float]:
    order, prompt_load, spare_s = order_prompts(rows, np.arange(len(rows)), TABLE, 0.0)
    return order.tolist(), prompt_load, spare_s


def on_time(rows: Rows, order: list[int]) -> list[int]:
    """Of prompts that are computed one after the other, those that end in time."""
    ends_s = SHARED_S + np.cumsum([prompt_s(rows, i, TABLE) - SHARED_S for i in order])
    return [i for i, end_s in zip(order, ends_s, strict=True) if end_s <= rows[i, DEADLINE] + 1e-9]


def feasible(rows: Rows, chosen: tuple[int, ...]) -> bool:
    by_due = sorted(chosen, key=lambda i: rows[i, DEADLINE])
    return len(on_time(rows, by_due)) == len(chosen)


@given(PROMPTS)
def test_as_many_prompts_are_on_time_as_any_choice_of_them_allows(rows: Rows) -> None:
    order = ordered(rows)[0]
    everyone = range(len(rows))
    most = max(
        count
        for count in range(len(rows) + 1)
        if any(feasible(rows, chosen) for chosen in itertools.combinations(everyone, count))
    )

    assert sorted(order) == list(everyone)
    assert len(on_time(rows, order)) >= most


@given(PROMPTS)
def test_prompts_that_can_all_be_on_time_go_by_deadline(rows: Rows) -> None:
    rows[:, DEADLINE] += 3.0

    order, prompt_load, _ = ordered(rows)

    assert order == np.argsort(rows[:, DEADLINE], kind="stable").tolist()
    assert prompt_load < 1


@given(PROMPTS)
def test_beside_a_step_of_the_spare_time_prompts_that_can_be_on_time_are(rows: Rows) -> None:
    rows[:, DEADLINE] += 3.0

    order, _, spare_s = ordered(rows)
    ends_s = spare_s + np.cumsum([prompt_s(rows, i, TABLE) - SHARED_S for i in order])

    assert (ends_s <= rows[order, DEADLINE]).all()
    assert spare_s > 0


def test_a_prompt_that_was_begun_is_not_shed_for_a_fresh_one() -> None:
    rows = np.array([new_row(tokens=2000, left=9, due_s=0.13) for _ in range(2)])
    assert not feasible(rows, (0, 1))

    rows[1, COMPUTED] = 1000

    assert ordered(rows)[0] == [1, 0]
