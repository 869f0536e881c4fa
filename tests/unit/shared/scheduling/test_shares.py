"""What one request gets of a step."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.batch_time.table import COUNTS, sure_s
from shared.scheduling.former import engine_limits
from shared.scheduling.rows import COLUMNS, new_row
from shared.scheduling.shares import MAX_TOKENS, add_chunk, add_decode, add_decodes, give_chunk
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
