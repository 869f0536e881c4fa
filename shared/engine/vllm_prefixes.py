"""vLLM's KV events of one engine core, as what they say of its prefix cache. Publishes nothing."""

from dataclasses import dataclass
from typing import Any

from vllm.distributed.kv_events import (
    MEDIUM_GPU,
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    KVEventBatch,
)

from shared.engine.prefix_spans import PrefixSpans

_FIRST_GROUP = (None, 0)  # the layers of other KV groups have the same prompts
_OWN_POOL = (None, MEDIUM_GPU)  # what vLLM calls the engine's KV cache on all devices


@dataclass(slots=True)
class PrefixEvents:
    """In the place of vLLM's publisher of KV events, which it hands them on to."""

    spans: PrefixSpans
    next: Any  # vLLM's own publisher

    def publish(self, batch: KVEventBatch) -> None:
        for event in batch.events:
            self._hear(event)
        self.next.publish(batch)

    def shutdown(self) -> None:
        self.next.shutdown()

    def get_publisher_config(self) -> Any:
        return self.next.get_publisher_config()

    def _hear(self, event: Any) -> None:
        """Blocks that are not full have another size."""
        if isinstance(event, AllBlocksCleared):
            self.spans.cleared()
        elif event.group_idx not in _FIRST_GROUP or event.medium not in _OWN_POOL:
            return
        elif isinstance(event, BlockRemoved):
            self.spans.removed(number_of(one) for one in event.block_hashes)
        elif isinstance(event, BlockStored) and event.block_size == self.spans.block_tokens:
            parent = event.parent_block_hash
            self.spans.stored(
                None if parent is None else number_of(parent),
                [number_of(one) for one in event.block_hashes],
            )


def number_of(block_hash: Any) -> int:
    """The last 64 bits of vLLM's hash of a block, which is how it publishes them by default."""
    if isinstance(block_hash, int):
        return block_hash
    return int.from_bytes(block_hash[-8:])
