"""Hashes a prompt's blocks as vLLM's prefix cache does.

By these hashes the planner finds the engines that hold KV of the prompt's beginning.
"""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core import kv_cache_utils
from vllm.v1.engine import EngineCoreRequest

from shared.engine.vllm_prefixes import number_of
from shared.engines import EngineDescription, EngineView
from shared.requests import PromptHashes

_ALGORITHM = "sha256"  # vLLM's own choice
_LONG_TOKENS = 8_192  # longer prompts take milliseconds: they are hashed in a thread
_hash = get_hash_fn_by_name(_ALGORITHM)
kv_cache_utils.init_none_hash(_hash)


async def prompt_hashes(
    request: EngineCoreRequest, engines: Iterable[EngineView]
) -> PromptHashes | None:
    """Hashes for the engines that report their prefix caches, which are taken to have one layout.

    None if no engine reports, or if the request does not read a prefix cache.
    """
    telling = (one.description for one in engines if one.description.prefix_span_tokens)
    engine = next(telling, None)
    if engine is None or not _reads_cache(request):
        return None
    if len(request.prompt_token_ids or ()) > _LONG_TOKENS:
        return await asyncio.to_thread(_hashes, request, engine)
    return _hashes(request, engine)


def _hashes(request: EngineCoreRequest, engine: EngineDescription) -> PromptHashes:
    each = engine.prefix_span_tokens // engine.block_size_tokens
    hashes = islice(_block_hashes(request, engine.block_size_tokens), each - 1, None, each)
    return PromptHashes(span_tokens=engine.prefix_span_tokens, hashes=tuple(hashes))


def _reads_cache(request: EngineCoreRequest) -> bool:
    params: Any = request.sampling_params or request.pooling_params
    return request.prompt_embeds is None and not getattr(params, "skip_reading_prefix_cache", None)


def _block_hashes(request: EngineCoreRequest, block_tokens: int) -> Iterator[int]:
    """The hashes of the whole blocks, in order."""
    tokens = request.prompt_token_ids or []
    before, place = None, 0
    for start in range(0, len(tokens) - block_tokens + 1, block_tokens):
        end = start + block_tokens
        keys, place = kv_cache_utils.generate_block_hash_extra_keys(
            request,  # has all fields of a vLLM Request that are read
            start,
            end,
            place,
        )
        before = kv_cache_utils.hash_block_tokens(_hash, before, tokens[start:end], keys)
        yield number_of(before)
