"""A fix of LoRA in vLLM's CPU build, for batches in which some rows have no adapter.

vLLM marks such rows with the index -1. Its kernels for GPUs skip them; its torch operations for CPU
take -1 as the last adapter, so that requests for the base model get that adapter's answer.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import torch
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu

_OPERATIONS: Final = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")


def leave_rows_without_adapter() -> None:
    """Puts the fixed operations in the place of vLLM's in this process; once is enough."""
    for module in (lora_ops, punica_cpu):
        for name in _OPERATIONS:
            setattr(module, name, skipping(getattr(module, name)))


def skipping(operation: Callable[..., None]) -> Callable[..., None]:
    """The operation with the inputs of rows with the index -1 set to zero: it is linear.

    Args:
        operation: takes inputs (rows, width), weights, output, indices (rows), and more.
    """

    @wraps(operation)
    def skips(
        inputs: torch.Tensor,
        weights: torch.Tensor,
        output: torch.Tensor,
        indices: torch.Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        without = indices < 0
        if bool(without.any()):
            inputs = inputs.masked_fill(without.unsqueeze(1), 0)
        operation(inputs, weights, output, indices, *args, **kwargs)

    return skips
