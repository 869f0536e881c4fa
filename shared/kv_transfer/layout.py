"""Where KV blocks lie in memory and how a transfer is cut into frames. Pure.

A transfer is a row of units: one block of one layer each, layer after layer, in the order of the
block ids. Holder and reader build the same row from their own block ids, so that a frame needs to
say only how many units came before it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from shared.compiled import compiled
from shared.errors import SlosError

_WORD_BYTES = 8
_MODULUS = 1 << 64

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]


class BadBlocks(SlosError):
    """Block ids that this KV cache does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The KV blocks of one layer: block n lies at `offset_bytes + n * stride_bytes`.

    `group` is the KV cache group whose block ids count here; `memory` numbers the buffer.
    """

    layer: int
    group: int
    memory: int
    offset_bytes: int
    stride_bytes: int
    block_bytes: int


@dataclass(frozen=True, kw_only=True)
class BlockLayout:
    """All regions in the order of the layers."""

    regions: tuple[Region, ...]
    blocks: int

    @cached_property
    def signature(self) -> str:
        """Equal for engines that can read each other's blocks."""
        words = [(one.layer, one.group, one.block_bytes) for one in self.regions]
        return hashlib.sha256(repr(words).encode()).hexdigest()[:16]

    def checked(self, groups: Sequence[Sequence[int]]) -> list[NDArray[np.int64]]:
        """Block ids by group. Raises BadBlocks."""
        wanted = max((one.group for one in self.regions), default=-1) + 1
        if len(groups) != wanted:
            raise BadBlocks(f"This KV cache has {wanted} groups of blocks, not {len(groups)}.")
        ids = [np.asarray(group, dtype=np.int64).reshape(-1) for group in groups]
        if any(len(one) and (one.min() < 0 or one.max() >= self.blocks) for one in ids):
            raise BadBlocks(f"Block ids of this KV cache lie between 0 and {self.blocks - 1}.")
        return ids

    def frames(
        self, groups: Sequence[Sequence[int]], frame_bytes: int
    ) -> Iterator["FrameOfBlocks"]:
        """The transfer of these blocks, cut into frames of at most `frame_bytes` (or one block).

        Raises BadBlocks.
        """
        ids = self.checked(groups)
        pieces: list[Piece] = []
        room = frame_bytes
        for region in self.regions:
            blocks = ids[region.group]
            start = 0
            while start < len(blocks):
                fits = max(0, room // region.block_bytes)
                if fits == 0 and pieces:
                    yield FrameOfBlocks(tuple(pieces))
                    pieces, room = [], frame_bytes
                    continue
                taken = blocks[start : start + max(1, fits)]
                pieces.append(Piece(region, region.offset_bytes + taken * region.stride_bytes))
                room -= len(taken) * region.block_bytes
                start += len(taken)
        if pieces:
            yield FrameOfBlocks(tuple(pieces))

    def bytes_of(self, groups: Sequence[Sequence[int]]) -> int:
        return sum(len(groups[one.group]) * one.block_bytes for one in self.regions)


@dataclass(frozen=True, slots=True)
class Piece:
    """Blocks of one region. `starts`: where each lies in the region's buffer, bytes."""

    region: Region
    starts: NDArray[np.int64]

    @property
    def size_bytes(self) -> int:
        return len(self.starts) * self.region.block_bytes

    def runs(self) -> list[tuple[int, int]]:
        """Start and end of the bytes that lie together."""
        block_bytes = self.region.block_bytes
        apart = np.flatnonzero(np.diff(self.starts) != block_bytes) + 1
        edges = [0, *apart.tolist(), len(self.starts)]
        return [
            (int(self.starts[a]), int(self.starts[b - 1]) + block_bytes) for a, b in pairwise(edges)
        ]


@dataclass(frozen=True, slots=True)
class FrameOfBlocks:
    """What one frame holds, as this side's memory has it."""

    pieces: tuple[Piece, ...]

    @property
    def first_layer(self) -> int:
        return self.pieces[0].region.layer

    @property
    def last_layer(self) -> int:
        return self.pieces[-1].region.layer

    @property
    def size_bytes(self) -> int:
        return sum(piece.size_bytes for piece in self.pieces)


def checksum(parts: Sequence[Bytes]) -> int:
    """Sum of the 64-bit words: it finds every change of one word, at the speed of memory.

    The length of each part is a multiple of 8 bytes.
    """
    return sum(int(words_of(part).sum(dtype=np.uint64)) for part in parts) % _MODULUS


def gather(frame: FrameOfBlocks, buffers: Sequence[Bytes], target: Bytes) -> int:
    """Copies the blocks of the frame into `target`, one after another; their checksum."""
    total, at, out = 0, 0, words_of(target)
    for piece in frame.pieces:
        size = piece.region.block_bytes // _WORD_BYTES
        source = words_of(buffers[piece.region.memory])
        total += int(_gather(source, piece.starts // _WORD_BYTES, size, out, at))
        at += len(piece.starts) * size
    return total % _MODULUS


def scatter(parts: Sequence[Bytes], frame: FrameOfBlocks, buffers: Sequence[Bytes]) -> int:
    """Copies `parts`, read as one row of bytes, into the blocks of the frame; their checksum.

    Raises BadBlocks where a part ends within a block.
    """
    sources = iter(parts)
    source, at, total = np.empty(0, dtype=np.uint64), 0, 0
    for piece in frame.pieces:
        size = piece.region.block_bytes // _WORD_BYTES
        target = words_of(buffers[piece.region.memory])
        starts = piece.starts // _WORD_BYTES
        while len(starts):
            if at == len(source):
                source, at = words_of(next(sources)), 0
            count = min(len(starts), (len(source) - at) // size)
            if count == 0:
                raise BadBlocks("A part of a frame ends within a block.")
            total += int(_scatter(source, at, target, starts[:count], size))
            at, starts = at + count * size, starts[count:]
    return total % _MODULUS


@compiled
def _gather(
    source: Words, starts: NDArray[np.int64], size: int, target: Words, at: int
) -> np.uint64:
    """One pass over memory in place of two: copies blocks of `size` words, and gives their sum."""
    total = np.uint64(0)
    for number in range(len(starts)):
        start, end = starts[number], at + number * size
        for place in range(size):
            word = source[start + place]
            target[end + place] = word
            total += word
    return total


@compiled
def _scatter(
    source: Words, at: int, target: Words, starts: NDArray[np.int64], size: int
) -> np.uint64:
    """The other way round."""
    total = np.uint64(0)
    for number in range(len(starts)):
        start, end = at + number * size, starts[number]
        for place in range(size):
            word = source[start + place]
            target[end + place] = word
            total += word
    return total


def words_of(part: Bytes) -> Words:
    """The same memory, or a copy where it does not begin at a word."""
    words = part.view(np.uint64)
    return words if words.flags.aligned else words.copy()


def warm_up() -> None:
    """Compiles what a transfer needs, so that the first one does not wait for it."""
    region = Region(
        layer=0, group=0, memory=0, offset_bytes=0, stride_bytes=_WORD_BYTES, block_bytes=8
    )
    frame = FrameOfBlocks((Piece(region, np.zeros(1, dtype=np.int64)),))
    memory, out = np.zeros(_WORD_BYTES, dtype=np.uint8), np.zeros(_WORD_BYTES, dtype=np.uint8)
    gather(frame, [memory], out)
    frozen = out.copy()
    frozen.flags.writeable = False  # as what comes from a message is
    scatter([frozen], frame, [memory])
    scatter([out], frame, [memory])


def is_word_aligned(*sizes_bytes: int) -> bool:
    """Whether blocks of these sizes and places can be copied word by word."""
    return all(one % _WORD_BYTES == 0 for one in sizes_bytes)
