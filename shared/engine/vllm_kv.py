"""What vLLM's KV cache groups make of an engine's memory."""

import math
from typing import Any

from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheGroupSpec, MambaSpec

from shared.engine.kv_layout import KvLayout

_GROWING_MAMBA_MODE = "all"  # a state for every block, so that prefixes can be found


def kv_layout(config: Any, kv: KVCacheConfig, block_tokens: int) -> KvLayout:
    """The layout of the pool that vLLM's scheduler was given.

    Args:
        config: vLLM's VllmConfig.
        kv: the scheduler's KV cache configuration.
        block_tokens: tokens in the scheduler's block.
    """
    groups = [group for group in kv.kv_cache_groups if not group.host_resident]
    fixed = [group for group in groups if _is_fixed(group)]
    growing = [group for group in groups if not _is_fixed(group)]
    parallel = config.parallel_config
    sharded = block_tokens // parallel.decode_context_parallel_size
    shards = parallel.tensor_parallel_size // kv.kv_tp_replicas
    return KvLayout(
        block_tokens=block_tokens,
        pool_blocks=kv.num_blocks - 1,  # vLLM keeps one as its null block
        blocks_per_whole=max(1, sum(_blocks(group, sharded) for group in growing)),
        blocks_per_request=sum(_request_blocks(group, config) for group in fixed),
        max_requests=config.scheduler_config.max_num_seqs,
        bytes_per_token=math.ceil(_request_bytes(groups, config) * shards / _longest(config)),
    )


def _is_fixed(group: KVCacheGroupSpec) -> bool:
    spec = group.kv_cache_spec
    return isinstance(spec, MambaSpec) and spec.mamba_cache_mode != _GROWING_MAMBA_MODE


def _blocks(group: KVCacheGroupSpec, block_tokens: int) -> int:
    return math.ceil(block_tokens / int(group.kv_cache_spec.block_size))


def _request_blocks(group: KVCacheGroupSpec, config: Any) -> int:
    spec = group.kv_cache_spec
    return math.ceil(int(spec.max_memory_usage_bytes(config)) / int(spec.page_size_bytes))


def _request_bytes(groups: list[KVCacheGroupSpec], config: Any) -> int:
    """The KV of one request of the longest length on one worker."""
    return sum(
        len(group.layer_names) * int(group.kv_cache_spec.max_memory_usage_bytes(config))
        for group in groups
    )


def _longest(config: Any) -> int:
    tokens: int = config.model_config.max_model_len
    return tokens
