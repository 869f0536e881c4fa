"""What one request gets of a step."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.batch_time.table import COUNTS, sure_s
from shared.scheduling.former import engine_limits
from shared.scheduling.rows import COLUMNS, COMPUTED, RESIDENT, new_row
from shared.scheduling.shares import (
    FREE_BLOCKS,
    MAX_TOKENS,
    add_chunk,
    add_decode,
    add_decodes,
    evict,
    give_chunk,
    take,
)
from tests.unit.shared.scheduling.loads import TABLES


def test_a_chunk_is_whole_tokens_whatever_part_drafts_leave_of_a_step() -> None:
    rows, table = new_row(tokens=200, left=5, due_s=60.0)[None], TABLES[0].numbers
    for left_tokens in (1.7, 2.5, 20.6, 99.9):
        counts = np.zeros(COUNTS)
        add_chunk(counts, rows, 0, left_tokens - 0.3)
        until_s = sure_s(table, counts)  # all but the part that is left would end in time
        left = engine_limits(max_tokens=512, block_tokens=16, max_resident=8)
        left[MAX_TOKENS] = left_tokens
        tokens, work = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int8)
        give_chunk(rows, work, tokens, np.zeros(COUNTS), table, left, 0, until_s)
        assert tokens[0] == int(left_tokens - 0.3)


@given(st.lists(st.tuples(st.floats(1, 1e5), st.floats(0, 4)), max_size=20), st.randoms())
def test_decodes_added_together_count_exactly_as_one_after_the_other(
    decodes: list[tuple[float, float]], order: random.Random
) -> None:
    rows = np.array([new_row(tokens=n, computed=n - 1, left=5, draft=d) for n, d in decodes])
    those = np.array(order.sample(range(len(rows)), len(rows)), dtype=np.intp)
    together, one_by_one = np.ones(COUNTS), np.ones(COUNTS)

    add_decodes(together, rows.reshape(len(rows), COLUMNS), those)
    for i in those:
        add_decode(one_by_one, rows, i)

    assert together.tolist() == one_by_one.tolist()


@given(st.integers(2, 400), st.integers(0, 20), st.integers(0, 8))
def test_a_row_takes_and_frees_only_the_blocks_that_it_does_not_share(
    own_tokens: int, shared_blocks: int, more_blocks: int
) -> None:
    shared, own_blocks = 16 * shared_blocks, -(-own_tokens // 16)
    prompt_tokens = shared + own_tokens
    row = new_row(tokens=prompt_tokens, computed=shared, shared=shared, left=5, due_s=60.0)
    rows, tokens, work = row[None], np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int8)
    left = engine_limits(max_tokens=512, block_tokens=16, max_resident=8)

    left[FREE_BLOCKS] = own_blocks - 1
    assert not take(rows, work, tokens, left, 0, own_tokens)
    left[FREE_BLOCKS] = own_blocks + more_blocks
    assert take(rows, work, tokens, left, 0, own_tokens)
    assert left[FREE_BLOCKS] == more_blocks

    rows[0, RESIDENT], rows[0, COMPUTED] = 1.0, prompt_tokens
    evict(rows, tokens, left, 0)
    assert left[FREE_BLOCKS] == more_blocks + own_blocks
