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
        held: list[Run] = []
        room, first, last = frame_bytes, 0, 0
        for region in self.regions:
            blocks = ids[region.group]
            start = 0
            while start < len(blocks):
                fits = max(0, room // region.block_bytes)
                if fits == 0 and held:
                    yield FrameOfBlocks(first_layer=first, last_layer=last, runs=tuple(held))
                    held, room = [], frame_bytes
                    continue
                taken = blocks[start : start + max(1, fits)]
                if not held:
                    first = region.layer
                last = region.layer
                held += _runs(region, taken)
                room -= len(taken) * region.block_bytes
                start += len(taken)
        if held:
            yield FrameOfBlocks(first_layer=first, last_layer=last, runs=tuple(held))

    def bytes_of(self, groups: Sequence[Sequence[int]]) -> int:
        return sum(len(groups[one.group]) * one.block_bytes for one in self.regions)


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes that lie together in buffer `memory`."""

    memory: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameOfBlocks:
    """What one frame holds, as this side's memory has it."""

    first_layer: int
    last_layer: int
    runs: tuple[Run, ...]

    @property
    def size_bytes(self) -> int:
        return sum(one.end - one.start for one in self.runs)


def _runs(region: Region, blocks: NDArray[np.int64]) -> list[Run]:
    starts = region.offset_bytes + blocks * region.stride_bytes
    apart = np.flatnonzero(np.diff(starts) != region.block_bytes) + 1
    edges = [0, *apart.tolist(), len(starts)]
    return [
        Run(region.memory, int(starts[a]), int(starts[b - 1]) + region.block_bytes)
        for a, b in pairwise(edges)
    ]


def checksum(parts: Sequence[Bytes]) -> int:
    """Sum of the 64-bit words: it finds every change of one word, at the speed of memory.

    The length of each part is a multiple of 8 bytes.
    """
    return sum(int(_words(part).sum(dtype=np.uint64)) for part in parts) % _MODULUS


def copy_parts(parts: Sequence[Bytes], targets: Sequence[Bytes]) -> int:
    """Fills `targets` from `parts`, both read as one row of bytes; their checksum.

    The sizes are equal in total, and each is a multiple of 8 bytes.
    """
    total = 0
    sources = iter(parts)
    source: Words = np.empty(0, dtype=np.uint64)
    for whole in targets:
        target = _words(whole)
        while len(target):
            if not len(source):
                source = _words(next(sources))
            size = min(len(source), len(target))
            total += int(_copy_words(source[:size], target[:size]))
            source, target = source[size:], target[size:]
    return total % _MODULUS


@compiled
def _copy_words(source: Words, target: Words) -> int:
    """One pass over memory in place of two: copies, and gives the sum."""
    total = np.uint64(0)
    for place in range(len(source)):
        word = source[place]
        target[place] = word
        total += word
    return total  # type: ignore[return-value] # numba hands on the number


def _words(part: Bytes) -> Words:
    words = part.view(np.uint64)
    return words if words.flags.aligned else words.copy()


def warm_up() -> None:
    """Compiles what a transfer needs, so that the first one does not wait for it."""
    words = np.zeros(_WORD_BYTES, dtype=np.uint8)
    copy_parts([words], [words.copy()])


def is_word_aligned(block_bytes: int) -> bool:
    """Whether `checksum` can read blocks of this size."""
    return block_bytes % _WORD_BYTES == 0
