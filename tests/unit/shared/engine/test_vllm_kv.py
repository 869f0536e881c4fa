from typing import Any

import pytest
import torch
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    KVCacheSpec,
    MambaSpec,
    MLAAttentionSpec,
    SlidingWindowSpec,
)

from shared.engine.config import EngineOptions
from shared.engine.kv_layout import KvLayout
from shared.engine.speculation import Speculation
from shared.engine.vllm_core import engine_config
from shared.engine.vllm_identity import step_time_identity
from shared.engine.vllm_kv import kv_layout
from shared.engines import Role
from shared.kv_transfer.settings import KvTransport
from shared.models.tiny import make_tiny_model

BLOCK_TOKENS = 32
MODEL_LEN = 4096
STEP_TOKENS = 256
HEADS, HEAD_SIZE = 2, 64
FULL = FullAttentionSpec(
    block_size=BLOCK_TOKENS, num_kv_heads=HEADS, head_size=HEAD_SIZE, dtype=torch.bfloat16
)
WINDOW = SlidingWindowSpec(
    block_size=BLOCK_TOKENS,
    num_kv_heads=HEADS,
    head_size=HEAD_SIZE,
    dtype=torch.bfloat16,
    sliding_window=128,
    dcp_sharded=False,
)
MAMBA = MambaSpec(block_size=MODEL_LEN, shapes=((16, 16),), dtypes=(torch.float32,))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_model(tmp_path_factory.mktemp("model")))


def config_of(model: str, **options: Any) -> Any:
    return engine_config(
        EngineOptions(
            kv_transport=KvTransport.NONE,
            max_model_len=MODEL_LEN,
            **({"max_step_tokens": STEP_TOKENS, "max_running_requests": 8} | options),
        ),
        role=Role.DECODE,
        engine_id="e1",
        link="ipc:///link",
        model_path=model,
    )


def layout(model: str, *specs: KVCacheSpec, blocks: int = 1001) -> KvLayout:
    groups = [KVCacheGroupSpec([f"layer-{at}"], one) for at, one in enumerate(specs)]
    kv = KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=groups)
    return kv_layout(config_of(model), kv, BLOCK_TOKENS)


def test_each_group_takes_a_block_of_its_own_for_the_same_tokens(model: str) -> None:
    assert layout(model, FULL).all_whole_blocks == 1000
    assert layout(model, FULL, WINDOW).all_whole_blocks == 500
    assert layout(model, FULL, WINDOW, WINDOW).all_whole_blocks == 333


def test_a_state_of_fixed_size_takes_its_blocks_once_for_each_request(model: str) -> None:
    hybrid = layout(model, FULL, MAMBA)

    assert hybrid.blocks_per_whole == 1
    assert hybrid.all_whole_blocks == 1000 - 8


def test_the_bytes_of_a_token_are_those_of_its_format(model: str) -> None:
    half = FullAttentionSpec(
        block_size=BLOCK_TOKENS, num_kv_heads=HEADS, head_size=HEAD_SIZE, dtype=torch.uint8
    )
    latent = MLAAttentionSpec(
        block_size=BLOCK_TOKENS, num_kv_heads=1, head_size=576, dtype=torch.bfloat16
    )

    assert layout(model, FULL).bytes_per_token == 2 * HEADS * HEAD_SIZE * 2
    assert layout(model, half).bytes_per_token == 2 * HEADS * HEAD_SIZE
    assert layout(model, latent).bytes_per_token == 576 * 2


def test_what_does_not_grow_with_the_request_hardly_adds_to_a_token(model: str) -> None:
    full = layout(model, FULL).bytes_per_token
    window_tokens = 128 + STEP_TOKENS + 2 * BLOCK_TOKENS

    assert full < layout(model, FULL, WINDOW).bytes_per_token
    assert layout(model, FULL, WINDOW).bytes_per_token <= full * (1 + window_tokens / MODEL_LEN)
    assert layout(model, FULL, MAMBA).bytes_per_token <= full + 2


@pytest.mark.parametrize(
    "changed",
    [
        {"speculation_tokens": 2},
        {"speculation_tokens": 2, "speculation": Speculation.DRAFT_MODEL, "with_draft": True},
        {"max_running_requests": 16},
        {"dtype": "float32"},
        {"vllm": {"enable_lora": True}},
        {"vllm": {"enable_lora": True, "max_lora_rank": 32}},
        {"vllm": {"attention_backend": "CPU_ATTN"}},
    ],
    ids=str,
)
def test_what_changes_step_times_changes_the_identity_of_a_profile(
    model: str, changed: dict[str, Any]
) -> None:
    options = dict(changed)
    if options.pop("with_draft", False):
        options["speculation_model"] = model
    plain = step_time_identity(config_of(model), cpu=True)

    assert step_time_identity(config_of(model), cpu=True) == plain
    assert step_time_identity(config_of(model, **options), cpu=True) != plain


def test_experts_in_parallel_are_another_identity(model: str) -> None:
    config = config_of(model)
    plain = step_time_identity(config, cpu=True)
    config.parallel_config.enable_expert_parallel = True

    assert step_time_identity(config, cpu=True) != plain


def test_the_identity_names_the_versions_that_it_was_measured_with(model: str) -> None:
    identity = step_time_identity(config_of(model), cpu=True)

    assert identity["torch"] == torch.__version__
    assert identity["vllm"]
    assert identity["device"]
