"""Requests that export a cached prefix to another engine."""

from typing import Any

from vllm.v1.request import Request

from shared.kv_transfer.settings import EXPORT_KEY


def exports(request: Request) -> bool:
    """Whether the request only exports what is cached of its prompt."""
    params: Any = request.kv_transfer_params
    return bool(isinstance(params, dict) and params.get(EXPORT_KEY))


def cut_to_cached(request: Request, cached_tokens: int, block_tokens: int) -> None:
    """Cuts the prompt of a new request to its cached tokens and one more.

    vLLM computes at least one token of each request. So an engine that has lost a prefix exports
    less of it, and never computes it for another engine.
    """
    tokens = cached_tokens + 1
    if request.prompt_token_ids is None or tokens >= request.num_prompt_tokens:
        return
    request.prompt_token_ids = request.prompt_token_ids[:tokens]
    request.num_prompt_tokens = tokens
    del request._all_token_ids[tokens:]
    del request.block_hashes[tokens // block_tokens :]
