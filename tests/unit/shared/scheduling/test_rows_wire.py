"""Rows on their way from an engine to the planner."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.scheduling.rows import (
    AVAILABLE,
    COLUMNS,
    DEADLINE,
    SHARED,
    Rows,
    from_wire,
    new_row,
    shared_to_wire,
    to_wire,
)

requests = st.lists(
    st.tuples(st.integers(1, 5000), st.integers(0, 40), st.floats(-50, 50)), max_size=8
)


def rows_of(those: list[tuple[int, int, float]], now: float) -> Rows:
    rows = [
        new_row(
            tokens=tokens + 16 * shared,
            computed=16 * shared,
            shared=16 * shared,
            left=7,
            due_s=now + due_s,
            available_s=now,
        )
        for tokens, shared, due_s in those
    ]
    return np.array(rows).reshape(-1, COLUMNS)


@given(requests, st.floats(0, 1e6), st.floats(0, 1e6))
def test_rows_arrive_on_the_clock_of_the_receiver(
    those: list[tuple[int, int, float]], sent_s: float, received_s: float
) -> None:
    rows = rows_of(those, sent_s)

    arrived = from_wire(to_wire(rows, sent_s), received_s, shared_to_wire(rows))

    later_s = received_s - sent_s
    for column in range(COLUMNS):
        moved = later_s if column in (DEADLINE, AVAILABLE) else 0.0
        assert arrived[:, column] == pytest.approx(rows[:, column] + moved, abs=1e-3)


@given(requests)
def test_rows_of_version_0_1_share_nothing(those: list[tuple[int, int, float]]) -> None:
    arrived = from_wire(to_wire(rows_of(those, 0.0), 0.0), 0.0)

    assert arrived.shape == (len(those), COLUMNS)
    assert not arrived[:, SHARED].any()


def test_shared_tokens_of_another_number_of_rows_are_an_error() -> None:
    rows = rows_of([(10, 2, 1.0), (10, 3, 1.0)], 0.0)

    with pytest.raises(ValueError, match="8 bytes are not one number for each of 1 rows"):
        from_wire(to_wire(rows[:1], 0.0), 0.0, shared_to_wire(rows))
