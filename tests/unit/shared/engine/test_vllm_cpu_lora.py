import pytest
import torch
from vllm.lora.ops.torch_ops import lora_ops

from shared.engine.vllm_cpu_lora import skipping

ROWS, WIDTH, RANK, ADAPTERS = 5, 8, 2, 3
INDICES = torch.tensor([0, -1, 2, -1, 1])
WITHOUT = INDICES < 0


def expand(operation: str, inputs: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(2)
    weights = torch.randn(ADAPTERS, 1, WIDTH, RANK)
    output = torch.ones(ROWS, WIDTH)
    more = (0, WIDTH) if operation.endswith("slice") else ()
    skipping(getattr(lora_ops, operation))(inputs, weights, output, INDICES, *more)
    return output


@pytest.mark.parametrize("operation", ["bgmv_expand", "bgmv_expand_slice"])
def test_a_row_without_an_adapter_keeps_the_output_of_the_model(operation: str) -> None:
    output = expand(operation, torch.randn(ROWS, RANK))

    assert torch.equal(output[WITHOUT], torch.ones(2, WIDTH))
    assert not torch.isclose(output[~WITHOUT], torch.ones(3, WIDTH)).all(dim=1).any()


def test_rows_with_an_adapter_are_as_vllm_computes_them() -> None:
    torch.manual_seed(1)
    inputs, weights = torch.randn(ROWS, WIDTH), torch.randn(ADAPTERS, 1, RANK, WIDTH)
    fixed, stock = torch.zeros(ROWS, RANK), torch.zeros(ROWS, RANK)

    skipping(lora_ops.bgmv_shrink)(inputs, weights, fixed, INDICES, 0.5)
    lora_ops.bgmv_shrink(inputs, weights, stock, INDICES, 0.5)

    assert torch.equal(fixed[~WITHOUT], stock[~WITHOUT])
    assert torch.equal(fixed[WITHOUT], torch.zeros(2, RANK))
    assert stock[WITHOUT].any()  # the fault; where vLLM has mended it, the fix can go
