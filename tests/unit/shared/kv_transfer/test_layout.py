import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.kv_transfer.layout import BadBlocks, BlockLayout, Region, checksum, copy_parts
from shared.kv_transfer.memory import HostMemory

BLOCKS, BLOCK_BYTES = 12, 16


def layout(layers: int = 3, *, stride: int = BLOCK_BYTES, groups: int = 1) -> BlockLayout:
    return BlockLayout(
        regions=tuple(
            Region(
                layer=layer,
                group=layer % groups,
                memory=0,
                offset_bytes=layer * BLOCKS * stride,
                stride_bytes=stride,
                block_bytes=BLOCK_BYTES,
            )
            for layer in range(layers)
        ),
        blocks=BLOCKS,
    )


def filled(of: BlockLayout, seed: int) -> NDArray[np.uint8]:
    stride = of.regions[0].stride_bytes
    size = len(of.regions) * BLOCKS * stride
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


IDS = st.lists(st.integers(0, BLOCKS - 1), unique=True, min_size=0, max_size=BLOCKS)


@given(data=st.data(), frame_bytes=st.integers(1, 200), padding=st.sampled_from([0, 8]))
def test_frames_carry_just_the_named_blocks_whatever_their_place_on_either_side(
    data: st.DataObject, frame_bytes: int, padding: int
) -> None:
    theirs, ours = layout(stride=BLOCK_BYTES + padding), layout()
    from_ids = data.draw(IDS)
    to_ids = data.draw(st.permutations(range(BLOCKS)))[: len(from_ids)]
    source, target = filled(theirs, 1), filled(ours, 2)
    before = target.copy()
    sender, receiver = HostMemory(theirs, [source]), HostMemory(ours, [target])

    sent = list(theirs.frames([from_ids], frame_bytes))
    awaited = list(ours.frames([to_ids], frame_bytes))
    for theirs_frame, ours_frame in zip(sent, awaited, strict=True):
        assert theirs_frame.first_layer == ours_frame.first_layer
        assert theirs_frame.last_layer == ours_frame.last_layer
        assert theirs_frame.size_bytes <= max(frame_bytes, BLOCK_BYTES)
        parts, total = sender.read(theirs_frame)
        assert receiver.write(ours_frame, parts) == total == checksum(parts)

    for layer in range(3):
        for block in range(BLOCKS):
            start = (layer * BLOCKS + block) * BLOCK_BYTES
            got = target[start : start + BLOCK_BYTES]
            if block in to_ids:
                at = from_ids[to_ids.index(block)]
                begin = (layer * BLOCKS + at) * (BLOCK_BYTES + padding)
                assert (got == source[begin : begin + BLOCK_BYTES]).all()
            else:
                assert (got == before[start : start + BLOCK_BYTES]).all()


def test_layers_come_in_order_so_that_the_first_is_whole_first() -> None:
    frames = list(layout(layers=4).frames([list(range(6))], frame_bytes=6 * BLOCK_BYTES))

    assert [(one.first_layer, one.last_layer) for one in frames] == [(n, n) for n in range(4)]


def test_blocks_that_lie_together_are_one_run() -> None:
    (frame,) = layout(layers=1).frames([[3, 4, 5, 9, 10]], frame_bytes=1 << 20)

    assert [(run.start // BLOCK_BYTES, run.end // BLOCK_BYTES) for run in frame.runs] == [
        (3, 6),
        (9, 11),
    ]


def test_each_group_counts_its_own_blocks() -> None:
    two = layout(layers=4, groups=2)

    assert two.bytes_of([[1, 2], [3]]) == (2 * 2 + 2 * 1) * BLOCK_BYTES
    assert sum(one.size_bytes for one in two.frames([[1, 2], [3]], 64)) == two.bytes_of(
        [[1, 2], [3]]
    )


@pytest.mark.parametrize("groups", [[[0], [1]], [[-1]], [[BLOCKS]], []])
def test_blocks_that_are_not_there_are_refused(groups: list[list[int]]) -> None:
    with pytest.raises(BadBlocks):
        list(layout().frames(groups, 1 << 20))


def test_engines_with_other_blocks_have_another_signature() -> None:
    assert layout().signature == layout(stride=24).signature
    assert layout().signature != layout(layers=4).signature


@given(st.integers(0, 255), st.integers(0, 7), st.integers(1, 255))
def test_a_changed_byte_changes_the_checksum(seed: int, word: int, change: int) -> None:
    data = np.random.default_rng(seed).integers(0, 256, 64, dtype=np.uint8)
    other = data.copy()
    other[8 * word] ^= change

    assert checksum([data]) != checksum([other])
    assert checksum([data[:24], data[24:]]) == checksum([data])


def test_parts_and_targets_may_be_cut_differently() -> None:
    source, target = np.arange(24, dtype=np.uint8), np.zeros(24, dtype=np.uint8)

    total = copy_parts([source[:8], source[8:]], [target[:16], target[16:]])

    assert (source == target).all()
    assert total == checksum([source])
