import numpy as np
import pytest

from services.bench.kv_layout import Bytes, KvLayout, Numbers
from services.bench.kv_measure import MemoryCopy, Mover, WrongBytes
from services.bench.kv_report import COPY, CURVE, NIXL, TCP, ZMQ, make_rows

LAYOUT = KvLayout(layers=2, kv_heads=1, head_size=8, block_tokens=4, item_bytes=4, blocks=6)


class TickingClock:
    """Each look at it is a second later."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def now(self) -> float:
        self.at_s += 1.0
        return self.at_s


def copier(memory: Bytes) -> MemoryCopy:
    return MemoryCopy(LAYOUT.filled(), memory, TickingClock().now)


def test_every_way_is_measured_as_often_and_in_turns() -> None:
    memory, asked = LAYOUT.empty(), []
    copy = copier(memory)

    def way(name: str, local: Numbers, remote: Numbers) -> float:
        asked.append(name)
        return copy.read(local, remote)

    ways = {name: lambda a, b, name=name: way(name, a, b) for name in (NIXL, COPY, TCP)}
    moves = Mover(LAYOUT, memory, ways).run((1, 9), rounds=4)

    assert [len(moves.times_s[tokens][name]) for tokens in (1, 9) for name in ways] == [4] * 6
    assert asked == [NIXL, COPY, TCP] * (len(asked) // 3)


def test_a_way_that_brings_nothing_is_an_error() -> None:
    memory = LAYOUT.empty()
    lazy = {NIXL: lambda _local, _remote: 1.0}

    with pytest.raises(WrongBytes, match="nixl brought wrong bytes"):
        Mover(LAYOUT, memory, lazy).run((9,), rounds=1)


def test_a_copy_leaves_other_blocks_alone() -> None:
    memory = LAYOUT.empty()
    local, remote = np.array([1, 7], dtype=np.int32), np.array([3, 9], dtype=np.int32)

    copier(memory).read(local, remote)

    assert np.flatnonzero(memory.any(axis=1)).tolist() == [1, 7]


def test_a_ratio_above_one_means_that_nixl_is_faster() -> None:
    memory = LAYOUT.empty()
    copy = copier(memory)
    slow = {NIXL: 1.0, COPY: 2.0, TCP: 4.0, ZMQ: 3.0, CURVE: 6.0}

    def way(factor: float, local: Numbers, remote: Numbers) -> float:
        return factor * copy.read(local, remote)

    ways = {name: lambda a, b, factor=factor: way(factor, a, b) for name, factor in slow.items()}
    (row,) = make_rows(LAYOUT, Mover(LAYOUT, memory, ways).run((1,), rounds=2))

    assert row.over(NIXL, COPY) == pytest.approx(2.0)
    assert row.over(NIXL, TCP) == pytest.approx(4.0)
