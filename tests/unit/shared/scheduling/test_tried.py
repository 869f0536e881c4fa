"""What becomes of requests without a promise that may still be in time."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.batch_time.table import COUNTS, FloatArray, expected_s
from shared.scheduling.kernel import form
from shared.scheduling.prompt_times import prompt_s
from shared.scheduling.rows import BEST_EFFORT, NO_SLO, PROMISED, RESIDENT, Rows, new_row
from shared.scheduling.shares import LONGEST_S, Tokens
from tests.unit.shared.scheduling.loads import TABLES
from tests.unit.shared.scheduling.loads import limits as drawn_limits

TABLE = TABLES[0]
PACE_S = 0.05


def prompt(due_s: float, *, tokens: float = 400, kind: float = BEST_EFFORT) -> FloatArray:
    return new_row(tokens=tokens, left=50, due_s=due_s, tpot_s=PACE_S, kind=kind)


def decode(due_s: float, *, kind: float = BEST_EFFORT) -> FloatArray:
    row = new_row(
        tokens=500, computed=499, produced=3, left=100, due_s=due_s, tpot_s=PACE_S, kind=kind
    )
    row[RESIDENT] = 1.0
    return row


def step(*rows: FloatArray, longest_s: float = 0.0) -> tuple[Tokens, float]:
    bounds = drawn_limits(random.Random(1), max_tokens=8192, max_resident=4096, longest_s=longest_s)
    bounds[LONGEST_S] = longest_s
    tokens, counts = np.zeros(len(rows), dtype=np.int64), np.zeros(COUNTS)
    table: Rows = np.array(rows)
    return tokens, form(table, tokens, counts, TABLE.numbers, bounds, 0.0)


def alone_s(tokens: float) -> float:
    return float(prompt_s(np.array([prompt(1.0, tokens=tokens)]), 0, TABLE.numbers))


def test_a_prompt_that_may_be_in_time_comes_before_one_that_asked_for_nothing() -> None:
    plain = new_row(tokens=8192, left=50, kind=NO_SLO)
    in_time, _ = step(plain, prompt(alone_s(400) + 0.05))
    too_late, _ = step(plain, prompt(alone_s(400) - 0.001))

    assert in_time[1] == 400
    assert too_late[1] == 0


def test_of_those_that_are_tried_the_one_that_is_due_first_comes_first() -> None:
    limit_s = alone_s(500)
    tokens, _ = step(prompt(9.0), prompt(3.0), prompt(5.0), longest_s=limit_s)

    assert tokens[1] == 400
    assert tokens[0] == 0 < tokens[2] < 400


def test_a_decode_is_tried_until_it_is_four_paces_late() -> None:
    plain = new_row(tokens=8192, left=50, kind=NO_SLO)
    tokens, lasts_s = step(plain, decode(0.03))
    late, _ = step(plain, decode(-4.1 * PACE_S), longest_s=0.05)

    assert tokens[1] == 1
    assert lasts_s <= 0.8 * PACE_S + 1e-9
    assert late[1] == 0


def test_promised_decodes_with_slack_wait_for_a_prompt_that_would_be_late_after_them() -> None:
    promised = [decode(20 * PACE_S, kind=PROMISED) for _ in range(20)]
    due_s = alone_s(400) + 0.001
    beside, _ = step(*promised, prompt(due_s))
    later, _ = step(*promised, prompt(9.0))

    assert beside.tolist() == [0] * 20 + [400]
    assert later.tolist() == [1] * 20 + [400]


def test_promised_decodes_that_are_not_ahead_do_not_wait_for_a_prompt_without_a_promise() -> None:
    promised = [decode(2 * PACE_S, kind=PROMISED) for _ in range(20)]
    tokens, _ = step(*promised, prompt(alone_s(3000) + 0.001, tokens=3000))

    assert tokens[:20].tolist() == [1] * 20


def test_a_prompt_without_a_promise_waits_for_a_promised_one() -> None:
    limit_s = alone_s(400) + 1e-4
    first = prompt(alone_s(400) + 0.001)
    tokens, _ = step(first, prompt(limit_s + 0.001, kind=PROMISED), longest_s=limit_s)

    assert tokens.tolist() == [0, 400]


def test_decodes_that_may_be_in_time_are_not_starved_by_prompts_that_may() -> None:
    promised = decode(20 * PACE_S, kind=PROMISED)
    tokens, lasts_s = step(promised, decode(0.03), prompt(9.0, tokens=8000))

    assert tokens[1] == 1
    assert lasts_s <= 0.8 * PACE_S + 1e-9


@given(
    st.lists(st.floats(0.06, 2.0), min_size=1, max_size=6),
    st.lists(st.floats(0.06, 2.0), min_size=1, max_size=6),
)
def test_what_is_tried_makes_no_promised_decode_late(
    promised_s: list[float], tried_s: list[float]
) -> None:
    promised = [decode(due_s, kind=PROMISED) for due_s in promised_s]
    tried = [prompt(due_s, tokens=3000) for due_s in tried_s]
    _, lasts_s = step(*promised, *tried)
    counts = np.zeros(COUNTS)

    assert expected_s(TABLE.numbers, counts) < lasts_s <= max(min(promised_s), PACE_S)
