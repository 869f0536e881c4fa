import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.errors import ConfigError
from shared.kv_transfer import memory as memory_module
from shared.kv_transfer.layout import BadBlocks, BlockLayout, Region, checksum
from shared.kv_transfer.memory import HostMemory, kv_memory

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

    assert [(start // BLOCK_BYTES, end // BLOCK_BYTES) for _, start, end in frame.runs()] == [
        (3, 6),
        (9, 11),
    ]


def test_each_group_counts_its_own_blocks() -> None:
    two = layout(layers=4, groups=2)

    moved_bytes = sum(one.size_bytes for one in two.frames([[1, 2], [3]], 64))

    assert moved_bytes == (2 * 2 + 2 * 1) * BLOCK_BYTES


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


def test_parts_may_be_cut_where_the_blocks_of_the_holder_lie_apart() -> None:
    of = layout(layers=2)
    (frame,) = of.frames([[3, 4, 9]], 1 << 20)
    memory, row = filled(of, 3), np.arange(6 * BLOCK_BYTES, dtype=np.uint8)
    parts = [row[:BLOCK_BYTES], row[BLOCK_BYTES : 4 * BLOCK_BYTES], row[4 * BLOCK_BYTES :]]

    total = HostMemory(of, [memory]).write(frame, parts)

    assert total == checksum([row])
    read, _ = HostMemory(of, [memory]).read(frame)
    assert np.concatenate(read).tobytes() == row.tobytes()


def test_a_part_that_ends_within_a_block_is_refused() -> None:
    of = layout(layers=1)
    (frame,) = of.frames([[3, 4]], 1 << 20)
    row = np.zeros(2 * BLOCK_BYTES, dtype=np.uint8)

    with pytest.raises(BadBlocks):
        HostMemory(of, [filled(of, 3)]).write(frame, [row[:8], row[8:]])


@pytest.mark.parametrize("longest", [BLOCK_BYTES, 1 << 20])
def test_what_is_gathered_and_what_is_sent_as_it_lies_are_the_same_bytes(
    longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, memory = layout(), filled(layout(), 5)
    (frame,) = of.frames([[1, 2, 3, 7]], 1 << 20)
    monkeypatch.setattr(memory_module, "GATHER_BELOW_BYTES", longest)

    parts, total = HostMemory(of, [memory]).read(frame)

    assert len(parts) == (1 if longest > BLOCK_BYTES else 6)
    assert total == checksum(parts)
    expected = b"".join(memory[start:end].tobytes() for _, start, end in frame.runs())
    assert b"".join(part.tobytes() for part in parts) == expected


def test_a_kv_cache_is_found_in_the_tensors_of_vllm() -> None:
    caches = {name: torch.zeros(2 * BLOCKS, 4, 3) for name in ("a", "b", "other")}

    found = kv_memory(caches, [["a"], ["b"]], BLOCKS)

    assert [(one.layer, one.group, one.block_bytes) for one in found.layout.regions] == [
        (0, 0, 2 * 4 * 3 * 4),
        (1, 1, 2 * 4 * 3 * 4),
    ]
    (frame,) = found.layout.frames([[5], [7]], 1 << 20)
    found.write(frame, [np.arange(2 * 96, dtype=np.uint8)])
    assert caches["a"].view(torch.uint8).flatten()[5 * 96 : 6 * 96].tolist() == list(range(96))
    assert caches["b"].view(torch.uint8).flatten()[7 * 96 : 8 * 96].tolist() == list(range(96, 192))


@pytest.mark.parametrize(
    "cache", [torch.zeros(BLOCKS * 7), torch.zeros(4, BLOCKS, 6).movedim(1, 0)]
)
def test_a_cache_without_whole_blocks_is_refused_with_the_way_out(cache: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="--kv-transport nixl"):
        kv_memory({"a": cache}, [["a"]], BLOCKS)
