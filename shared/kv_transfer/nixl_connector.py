"""vLLM's NIXL connector, taught one thing: a request may go on from a prompt that is longer than
the KV that was moved.

It keeps vLLM's name, because vLLM tells its NIXL configurations by that name; the engine host
points vLLM to this module.
"""

import os
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.nixl.connector import (
    NixlConnector as VllmNixlConnector,
)
from vllm.v1.request import Request

from shared.kv_transfer.nixl_progress import let_progress_thread_sleep

let_progress_thread_sleep()  # vLLM imports this module before it makes its NIXL agent


def tokens_to_pull(
    params: dict[str, Any] | None, *, prompt_tokens: int, local_tokens: int
) -> int | None:
    """How many tokens of KV to fetch for a request that continues after its first token; None
    leaves the answer to vLLM.

    The prefill engine holds `remote_num_tokens`; the prompt here is longer by the tokens
    already produced there. `local_tokens` are cached here.
    """
    if not params or not params.get("do_remote_prefill"):
        return None
    held_tokens = params.get("remote_num_tokens") or 0
    if not 0 < held_tokens < prompt_tokens:
        return None
    return max(0, held_tokens - local_tokens)


class NixlConnector(VllmNixlConnector):
    """See the module's first line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # On CPU vLLM's worker moves the thread that makes it to the last core of the machine. That
        # thread runs the model, so all engines of a machine would compute on that one core.
        cores = os.sched_getaffinity(0)
        super().__init__(*args, **kwargs)
        os.sched_setaffinity(0, cores)

    def get_num_new_matched_tokens(
        self, request: Request, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        tokens = tokens_to_pull(
            request.kv_transfer_params,
            prompt_tokens=request.num_prompt_tokens,
            local_tokens=num_computed_tokens,
        )
        if tokens is None:
            vllm_answer: tuple[int | None, bool] = super().get_num_new_matched_tokens(
                request, num_computed_tokens
            )
            return vllm_answer
        return tokens, tokens > 0
