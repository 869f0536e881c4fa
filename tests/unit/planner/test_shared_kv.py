"""What the planner knows of KV blocks that several requests of an engine share."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.planner.state.shared_kv import shared_in
from shared.batch_time.table import FloatArray
from shared.scheduling.rows import RESIDENT, new_row

BLOCK = 16


def running(prefix_blocks: int, own_tokens: int, *, shares: bool = True) -> FloatArray:
    tokens = BLOCK * prefix_blocks + own_tokens
    row = new_row(
        tokens=tokens,
        computed=tokens - 1,
        produced=1,
        left=4,
        tpot_s=1.0,
        due_s=1.0,
        shared=BLOCK * prefix_blocks * shares,
    )
    row[RESIDENT] = 1.0
    return row


@given(st.integers(1, 40), st.lists(st.integers(2, 200), min_size=2, max_size=9))
def test_blocks_that_no_request_has_alone_are_shared(prefix: int, own: list[int]) -> None:
    rows = np.array([running(prefix, tokens) for tokens in own])
    used = prefix + sum(-(-(tokens - 1) // BLOCK) for tokens in own)

    found = shared_in(rows, ["chat"] * len(own), used, BLOCK)

    assert found.blocks == prefix
    assert found.tokens == {"chat": BLOCK * prefix}


def test_shared_blocks_are_each_held_at_least_twice_whatever_else_is_in_use() -> None:
    rows = np.array([running(10, 30), running(10, 30)])

    found = shared_in(rows, ["chat", "chat"], 500, BLOCK)

    assert found.blocks == 10


def test_two_requests_with_one_long_prompt_say_nothing_of_others_of_their_class() -> None:
    rows = np.array([running(50, 30), running(50, 30), *(running(2, 300) for _ in range(3))])

    found = shared_in(rows, ["chat"] * 5, 500, BLOCK)

    assert found.tokens == {"chat": 2 * BLOCK}


def test_nothing_is_shared_where_no_class_is_given() -> None:
    found = shared_in(np.array([running(10, 30, shares=False)]), [], 500, BLOCK)

    assert (found.blocks, found.tokens) == (0, {})
