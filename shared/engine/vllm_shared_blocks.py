"""Which of vLLM's KV blocks several requests hold, because their prompts begin alike."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.kv_cache_utils import KVCacheBlock
from vllm.v1.request import Request

from shared.engine.request_rows import RequestRows
from shared.scheduling.rows import AVAILABLE, COMPUTED, REMAINING, RESIDENT, SHARED

_LOOKED_AT = 8  # requests in each step: all of 256 about once a second


@dataclass(slots=True)
class SharedBlocks:
    """Keeps SHARED of an engine's rows true, and COMPUTED of its waiting ones, in turns.

    Only for models with one group of KV layers; the rows of others share nothing.
    """

    manager: KVCacheManager
    block_tokens: int
    _next: int = 0

    @property
    def _looks(self) -> bool:
        return bool(self.manager.enable_caching and self.manager.num_kv_cache_groups == 1)

    def found(self, request: Request) -> tuple[int, int]:
        """Tokens of a waiting prompt that are cached, and of these those in blocks that running
        requests hold.
        """
        blocks, cached_tokens = self.manager.get_computed_blocks(request)[:2]
        if not self._looks:
            return cached_tokens, 0
        return cached_tokens, self._held(blocks.blocks[0], 1)

    def look(self, rows: RequestRows[Request], now: float) -> None:
        """Looks at the next requests of these."""
        if not self._looks:
            return
        held = rows.former.rows
        for _ in range(min(_LOOKED_AT, len(held))):
            self._next = (self._next + 1) % len(held)
            row = held[self._next]
            if row[REMAINING] <= 0 or row[AVAILABLE] > now:
                continue
            request = rows.of_slots([self._next])[0]
            if row[RESIDENT]:
                blocks = self.manager.get_blocks(request.request_id).blocks[0]
                row[SHARED] = self._held(blocks, 2)
            else:
                row[COMPUTED], row[SHARED] = self.found(request)

    def _held(self, blocks: Sequence[KVCacheBlock], least: int) -> int:
        """Tokens in the blocks that at least so many running requests hold. A request that holds a
        block holds those before it as well.
        """
        number = bisect_left(blocks, True, key=lambda block: block.ref_cnt < least)
        return number * self.block_tokens
