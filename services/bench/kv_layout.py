"""The layout of a KV cache: one region per layer, K and V of a block together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_PATTERN = 251  # prime, so that blocks at one place in two layers differ

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class KvLayout:
    """Layer after layer, each `blocks` blocks of `block_tokens` tokens.

    A descriptor is one block of one layer: number `layer * blocks + block`.
    """

    layers: int
    kv_heads: int
    head_size: int
    block_tokens: int
    item_bytes: int
    blocks: int

    @property
    def block_bytes(self) -> int:
        """Bytes of one block in one layer, keys and values."""
        return 2 * self.kv_heads * self.block_tokens * self.head_size * self.item_bytes

    @property
    def descriptors(self) -> int:
        return self.layers * self.blocks

    @property
    def total_bytes(self) -> int:
        return self.descriptors * self.block_bytes

    def blocks_of(self, prompt_tokens: int) -> int:
        """The number of blocks that move for a prompt; they are whole ones."""
        return -(-prompt_tokens // self.block_tokens)

    def bytes_of(self, prompt_tokens: int) -> int:
        return self.layers * self.blocks_of(prompt_tokens) * self.block_bytes

    def numbers_of(self, blocks: Numbers) -> Numbers:
        """The descriptors of these blocks in every layer, layer after layer."""
        first = np.arange(self.layers, dtype=np.int32)[:, None] * self.blocks
        numbers: Numbers = (first + blocks[None, :]).astype(np.int32).ravel()
        return numbers

    def table(self, base_address: int) -> NDArray[np.uint64]:
        """(address, bytes, device) of each descriptor, for memory that starts at `base_address`."""
        table = np.zeros((self.descriptors, 3), dtype=np.uint64)
        offsets = np.arange(self.descriptors, dtype=np.uint64) * np.uint64(self.block_bytes)
        table[:, 0] = np.uint64(base_address) + offsets
        table[:, 1] = self.block_bytes
        return table

    def empty(self) -> Bytes:
        """Memory for all blocks, one row per descriptor, its pages touched."""
        return np.zeros((self.descriptors, self.block_bytes), dtype=np.uint8)

    def filled(self) -> Bytes:
        """Memory for all blocks, each filled with the byte that `pattern` gives."""
        memory = self.empty()
        memory[:] = pattern(np.arange(self.descriptors, dtype=np.int32))[:, None]
        return memory


def pattern(numbers: Numbers) -> Bytes:
    """The byte that fills each of these descriptors on the side that is read."""
    return (numbers % _PATTERN).astype(np.uint8)


def is_right(memory: Bytes, local: Numbers, remote: Numbers) -> bool:
    """Whether the local descriptors in `memory` hold what the `remote` ones held."""
    return bool((memory[local] == pattern(remote)[:, None]).all())
