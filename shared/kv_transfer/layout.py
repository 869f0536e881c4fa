"""The places of KV blocks in memory, and the division of a transfer into frames.

A transfer is a sequence of units: one block of one layer each, layer after layer, in the order of
the block ids. Holder and reader build the same sequence from their own block ids, so a frame needs
only its number.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shared.compiled import compiled, words_at
from shared.errors import SlosError

_WORD_BYTES = 8
_MODULUS = 1 << 64

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
Numbers = NDArray[np.int64]


class BadBlocks(SlosError):
    """Block ids that this KV cache does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The KV blocks of one layer: block n lies at `offset_bytes + n * stride_bytes`.

    `group` is the KV cache group that the block ids belong to; `memory` is the buffer's number.
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

    def checked(self, groups: Sequence[Sequence[int]]) -> list[Numbers]:
        """Block ids by group, as arrays. Raises BadBlocks for ids that this cache does not have."""
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
        """The transfer of these blocks in frames of at most `frame_bytes` (or one block).

        Raises BadBlocks.
        """
        ids = self.checked(groups)
        counts = [len(ids[one.group]) for one in self.regions]
        if not sum(counts):
            return
        starts = np.concatenate(
            [one.offset_bytes + ids[one.group] * one.stride_bytes for one in self.regions]
        )
        region = np.repeat(np.arange(len(self.regions)), counts)
        sizes, memories = self._block_bytes[region], self._memories[region]
        ends = np.cumsum(sizes)
        runs = np.cumsum(_begins_run(memories, starts, sizes))
        first, sent_bytes = 0, 0
        while first < len(sizes):
            last = int(ends.searchsorted(sent_bytes + frame_bytes, side="right"))
            part = slice(first, max(first + 1, last))
            first, before_bytes, sent_bytes = part.stop, sent_bytes, int(ends[part.stop - 1])
            yield FrameOfBlocks(
                first_layer=self.regions[region[part.start]].layer,
                last_layer=self.regions[region[part.stop - 1]].layer,
                memories=memories[part],
                starts=starts[part],
                sizes=sizes[part],
                size_bytes=sent_bytes - before_bytes,
                run_count=1 + int(runs[part.stop - 1] - runs[part.start]),
            )

    @cached_property
    def _block_bytes(self) -> Numbers:
        return np.array([one.block_bytes for one in self.regions], dtype=np.int64)

    @cached_property
    def _memories(self) -> Numbers:
        return np.array([one.memory for one in self.regions], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class FrameOfBlocks:
    """The blocks of a frame in this side's memory: buffer, start and size of each.

    `run_count` is the number of contiguous runs.
    """

    first_layer: int
    last_layer: int
    memories: Numbers
    starts: Numbers
    sizes: Numbers
    size_bytes: int
    run_count: int

    def runs(self) -> list[tuple[int, int, int]]:
        """Buffer, start and end of each contiguous run."""
        firsts = np.flatnonzero(_begins_run(self.memories, self.starts, self.sizes))
        lasts = np.concatenate((firsts[1:] - 1, [len(self.sizes) - 1]))
        ends = self.starts[lasts] + self.sizes[lasts]
        columns = (self.memories[firsts], self.starts[firsts], ends)
        return list(zip(*(one.tolist() for one in columns), strict=True))


def _begins_run(memories: Numbers, starts: Numbers, sizes: Numbers) -> NDArray[np.bool_]:
    """Whether each block begins a new run, not adjacent to the block before it."""
    begins = np.ones(len(starts), dtype=np.bool_)
    begins[1:] = (starts[1:] != starts[:-1] + sizes[:-1]) | (memories[1:] != memories[:-1])
    return begins


def checksum(parts: Sequence[Bytes]) -> int:
    """Sum of the 64-bit words: it detects every change of one word, at memory speed.

    The length of each part is a multiple of 8 bytes.
    """
    return sum(int(_words(part).sum(dtype=np.uint64)) for part in parts) % _MODULUS


def gather(frame: FrameOfBlocks, addresses: Numbers, target: Bytes) -> int:
    """Copies the blocks of the frame into `target`, one after another; returns their checksum.

    `addresses` are the memory addresses of the buffers.
    """
    places = addresses[frame.memories] + frame.starts
    return int(_gather(places, frame.sizes, _words(target)))


def scatter(parts: Sequence[Bytes], frame: FrameOfBlocks, addresses: Numbers) -> int:
    """Copies `parts`, concatenated, into the blocks of the frame; returns their checksum.

    Raises BadBlocks if a part ends within a block.
    """
    places = addresses[frame.memories] + frame.starts
    if len(parts) == 1 and len(parts[0]) == frame.size_bytes:
        return int(_scatter(_words(parts[0]), places, frame.sizes))
    ends, first, taken_bytes, total = np.cumsum(frame.sizes), 0, 0, 0
    for part in parts:
        taken_bytes += len(part)
        last = int(np.searchsorted(ends, taken_bytes)) + 1
        if last > len(ends) or ends[last - 1] != taken_bytes:
            raise BadBlocks("A part of a frame ends within a block.")
        total += int(_scatter(_words(part), places[first:last], frame.sizes[first:last]))
        first = last
    return total % _MODULUS


@compiled
def _gather(places: Numbers, sizes: Numbers, target: Words) -> np.uint64:
    """Copies blocks and sums their words, in one pass over memory."""
    total, at = np.uint64(0), 0
    for number in range(len(places)):
        words = sizes[number] // _WORD_BYTES
        source = words_at(places[number], words)
        for place in range(words):
            word = source[place]
            target[at + place] = word
            total += word
        at += words
    return total


@compiled
def _scatter(source: Words, places: Numbers, sizes: Numbers) -> np.uint64:
    """Copies into blocks and sums the words, in one pass over memory."""
    total, at = np.uint64(0), 0
    for number in range(len(places)):
        words = sizes[number] // _WORD_BYTES
        target = words_at(places[number], words)
        for place in range(words):
            word = source[at + place]
            target[place] = word
            total += word
        at += words
    return total


def _words(part: Bytes) -> Words:
    """The same memory as words, or a copy if it is not aligned."""
    words = part.view(np.uint64)
    return words if words.flags.aligned else words.copy()


def warm_up() -> None:
    """Compiles the functions of a transfer, so that the first one does not wait for it."""
    memory, out = np.zeros(_WORD_BYTES, dtype=np.uint8), np.zeros(_WORD_BYTES, dtype=np.uint8)
    one = np.array([_WORD_BYTES], dtype=np.int64)
    zero = np.zeros(1, dtype=np.int64)
    frame = FrameOfBlocks(
        first_layer=0,
        last_layer=0,
        memories=zero,
        starts=zero,
        sizes=one,
        size_bytes=_WORD_BYTES,
        run_count=1,
    )
    addresses = np.array([memory.ctypes.data], dtype=np.int64)
    gather(frame, addresses, out)
    frozen = out.copy()
    frozen.flags.writeable = False  # as the parts of a message are
    scatter([frozen], frame, addresses)
    scatter([out], frame, addresses)


def is_word_aligned(*sizes_bytes: int) -> bool:
    """Whether blocks of these sizes and offsets can be copied word by word."""
    return all(one % _WORD_BYTES == 0 for one in sizes_bytes)
