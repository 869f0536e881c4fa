"""Reads and writes the engine's KV cache: in place on CPU, through host memory on a GPU."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from shared.errors import ConfigError
from shared.kv_transfer.layout import (
    BlockLayout,
    Bytes,
    FrameOfBlocks,
    Region,
    checksum,
    gather,
    is_word_aligned,
    scatter,
)
from shared.kv_transfer.tuning import GATHER_BELOW_BYTES


class KvMemory(Protocol):
    """Reads and writes the blocks of a frame."""

    layout: BlockLayout

    def read(self, frame: FrameOfBlocks) -> tuple[list[Bytes], int]:
        """The bytes of the frame in order, and their checksum."""

    def write(self, frame: FrameOfBlocks, parts: Sequence[Bytes]) -> int:
        """Writes `parts`, of the frame's total size, into its blocks; returns their checksum."""


class HostMemory:
    """A KV cache in host memory.

    Contiguous blocks are read as views, so nothing is copied before it is sent. A frame of short
    runs is gathered into one buffer: a message part for each run would cost more.
    """

    def __init__(self, layout: BlockLayout, buffers: Sequence[Bytes]) -> None:
        self.layout = layout
        self._buffers = buffers
        self._addresses = np.array([one.ctypes.data for one in buffers], dtype=np.int64)

    def read(self, frame: FrameOfBlocks) -> tuple[list[Bytes], int]:
        if frame.size_bytes >= GATHER_BELOW_BYTES * frame.run_count:
            views = [self._buffers[memory][start:end] for memory, start, end in frame.runs()]
            return views, checksum(views)
        gathered = np.empty(frame.size_bytes, dtype=np.uint8)
        return [gathered], gather(frame, self._addresses, gathered)

    def write(self, frame: FrameOfBlocks, parts: Sequence[Bytes]) -> int:
        return scatter(parts, frame, self._addresses)


class DeviceMemory:
    """A KV cache on an accelerator: frames pass through host memory on a separate stream.

    `write` returns when the device has the bytes, so a finished transfer can be used at once.
    """

    def __init__(self, layout: BlockLayout, buffers: Sequence[torch.Tensor]) -> None:
        self.layout = layout
        self._buffers = buffers
        self._stream: Any = torch.Stream(device=buffers[0].device)

    def read(self, frame: FrameOfBlocks) -> tuple[list[Bytes], int]:
        with self._stream:
            host = [one.to("cpu", non_blocking=True) for one in self._views(frame)]
        self._stream.synchronize()
        parts = [one.numpy() for one in host]
        return parts, checksum(parts)

    def write(self, frame: FrameOfBlocks, parts: Sequence[Bytes]) -> int:
        row = torch.from_numpy(np.concatenate(parts))
        with self._stream:
            for view in self._views(frame):
                view.copy_(row[: len(view)])
                row = row[len(view) :]
        self._stream.synchronize()
        return checksum(parts)

    def _views(self, frame: FrameOfBlocks) -> list[torch.Tensor]:
        return [self._buffers[memory][start:end] for memory, start, end in frame.runs()]


def kv_memory(
    caches: Mapping[str, torch.Tensor], groups: Sequence[Sequence[str]], blocks: int
) -> KvMemory:
    """The memory of the KV caches that vLLM registers; `groups` are the layers of each group.

    Raises ConfigError for a cache without contiguous blocks, as in state-space layers.
    """
    group_of = {name: number for number, names in enumerate(groups) for name in names}
    buffers: list[torch.Tensor] = []
    places: dict[int, int] = {}
    regions = []
    for layer, name in enumerate(one for one in caches if one in group_of):
        cache = caches[name]
        storage = cache.untyped_storage()
        if storage.data_ptr() not in places:
            places[storage.data_ptr()] = len(buffers)
            buffers.append(_bytes_of(cache))
        regions.append(_region(name, cache, layer, group_of[name], blocks, places))
    layout = BlockLayout(regions=tuple(regions), blocks=blocks)
    if buffers and buffers[0].device.type != "cpu":
        return DeviceMemory(layout, buffers)
    return HostMemory(layout, [one.numpy() for one in buffers])


def _bytes_of(cache: torch.Tensor) -> torch.Tensor:
    """The whole storage behind `cache`."""
    whole = torch.empty(0, dtype=torch.uint8, device=cache.device)
    return whole.set_(cache.untyped_storage())


def _region(
    name: str,
    cache: torch.Tensor,
    layer: int,
    group: int,
    blocks: int,
    places: Mapping[int, int],
) -> Region:
    per_block, rest = divmod(cache.shape[0], blocks)
    page = cache[:per_block] if cache.ndim > 1 and per_block and not rest else None
    if not _can_be_sent(cache, page):
        raise ConfigError(
            f"The KV cache of {name} has no blocks that can be sent over ZMQ: "
            "use --kv-transport nixl for this model."
        )
    assert page is not None
    return Region(
        layer=layer,
        group=group,
        memory=places[cache.untyped_storage().data_ptr()],
        offset_bytes=cache.storage_offset() * cache.element_size(),
        stride_bytes=cache.stride(0) * per_block * cache.element_size(),
        block_bytes=page.nbytes,
    )


def _can_be_sent(cache: torch.Tensor, page: torch.Tensor | None) -> bool:
    if page is None or not page.is_contiguous():
        return False
    item_bytes = cache.element_size()
    offset_bytes, stride_bytes = cache.storage_offset() * item_bytes, cache.stride(0) * item_bytes
    return is_word_aligned(page.nbytes, offset_bytes, stride_bytes)
