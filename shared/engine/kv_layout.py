"""How much KV an engine has room for, where groups of layers share one pool of blocks. Pure.

vLLM puts layers of one kind (full attention, one sliding window, Mamba) into a KV cache group, and
each group takes blocks of its own for a request. Everything outside the engine counts whole blocks:
one whole block holds `block_tokens` tokens of one request in every group.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KvLayout:
    """The pool of one engine.

    Attributes:
        block_tokens: tokens in a whole block.
        pool_blocks: blocks of the pool that requests can have.
        blocks_per_whole: blocks that one whole block takes of the pool, at most: those of a sliding
            window are counted as if the window never moved on.
        blocks_per_request: blocks that a request takes whatever its length (Mamba).
        max_requests: requests that the engine runs at once.
        bytes_per_token: KV of one token on all workers, averaged over the longest request.
    """

    block_tokens: int
    pool_blocks: int
    blocks_per_whole: int
    blocks_per_request: int
    max_requests: int
    bytes_per_token: int

    def whole_blocks(self, free_blocks: int, running: int) -> int:
        """Whole blocks that fit into `free_blocks` of the pool, beside `running` requests.

        The blocks that each further request takes whatever its length are set aside.
        """
        further = max(0, self.max_requests - running)
        left = free_blocks - further * self.blocks_per_request
        return max(0, left // self.blocks_per_whole)

    @property
    def all_whole_blocks(self) -> int:
        """Whole blocks of an idle engine."""
        return self.whole_blocks(self.pool_blocks, 0)
