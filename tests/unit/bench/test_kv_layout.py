import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.bench.kv_layout import KvLayout, is_right
from services.bench.kv_options import Dtype, KvOptions

LAYOUTS = st.builds(
    KvLayout,
    layers=st.integers(1, 4),
    kv_heads=st.integers(1, 3),
    head_size=st.sampled_from([8, 64]),
    block_tokens=st.sampled_from([4, 16]),
    item_bytes=st.sampled_from([2, 4]),
    blocks=st.integers(1, 6),
)


def test_the_default_is_the_embedded_model_whose_blocks_are_48_kib_in_float32() -> None:
    layout = KvOptions().layout

    assert layout.block_bytes == 2 * 3 * 32 * 64 * 4
    assert layout.blocks_of(1500) == 47
    assert layout.bytes_of(1500) == 30 * 47 * layout.block_bytes


def test_half_as_wide_numbers_weigh_half() -> None:
    wide, narrow = KvOptions().layout, KvOptions(dtype=Dtype.BFLOAT16).layout

    assert 2 * narrow.bytes_of(100) == wide.bytes_of(100)


@given(LAYOUTS)
def test_the_descriptors_cover_the_memory_without_gap_or_overlap(layout: KvLayout) -> None:
    base = 1 << 40
    table = layout.table(base)

    assert table[0, 0] == base
    assert (np.diff(table[:, 0]) == layout.block_bytes).all()
    assert int(table[:, 1].sum()) == layout.total_bytes == layout.empty().nbytes


@given(LAYOUTS, st.integers(1, 40))
def test_whole_blocks_hold_all_tokens_and_no_block_is_idle(layout: KvLayout, tokens: int) -> None:
    room = layout.blocks_of(tokens) * layout.block_tokens

    assert tokens <= room < tokens + layout.block_tokens


@given(LAYOUTS, st.data())
def test_a_block_is_read_in_every_layer(layout: KvLayout, data: st.DataObject) -> None:
    block = data.draw(st.integers(0, layout.blocks - 1))

    numbers = layout.numbers_of(np.array([block], dtype=np.int32))

    assert numbers.tolist() == [layer * layout.blocks + block for layer in range(layout.layers)]


@given(LAYOUTS, st.data())
def test_one_wrong_byte_is_seen(layout: KvLayout, data: st.DataObject) -> None:
    memory = layout.filled()
    numbers = np.arange(layout.descriptors, dtype=np.int32)
    assert is_right(memory, numbers, numbers)

    memory[data.draw(st.integers(0, layout.descriptors - 1)), -1] ^= 1

    assert not is_right(memory, numbers, numbers)
