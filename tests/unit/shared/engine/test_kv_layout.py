from hypothesis import assume, given
from hypothesis import strategies as st

from shared.engine.kv_layout import KvLayout


def layout(**changed: int) -> KvLayout:
    given: dict[str, int] = {
        "block_tokens": 16,
        "pool_blocks": 1000,
        "blocks_per_whole": 1,
        "blocks_per_request": 0,
        "max_requests": 8,
        "bytes_per_token": 1024,
    }
    return KvLayout(**(given | changed))


def test_with_one_group_a_whole_block_is_a_block_of_the_pool() -> None:
    assert layout().all_whole_blocks == 1000
    assert layout().whole_blocks(17, running=3) == 17


def test_two_groups_hold_half_as_much() -> None:
    assert layout(blocks_per_whole=2).all_whole_blocks == 500


@given(
    pool=st.integers(1, 2000),
    width=st.integers(1, 6),
    fixed=st.integers(0, 4),
    lengths=st.lists(st.integers(1, 40), max_size=8),
)
def test_what_fits_into_whole_blocks_fits_into_the_pool(
    pool: int, width: int, fixed: int, lengths: list[int]
) -> None:
    one = layout(pool_blocks=pool, blocks_per_whole=width, blocks_per_request=fixed)
    assume(sum(lengths) <= one.all_whole_blocks)
    taken = sum(length * width + fixed for length in lengths)

    assert not lengths or taken <= pool
    assert one.whole_blocks(pool - taken, len(lengths)) == one.all_whole_blocks - sum(lengths)
