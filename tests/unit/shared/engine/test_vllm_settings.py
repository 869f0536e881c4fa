from typing import Any

import pytest

from shared.engine.vllm_settings import check_settings
from shared.engines import Role
from shared.errors import ConfigError

KNOWN = ("seed", "max_num_seqs", "kv_cache_dtype", "pipeline_parallel_size", "enable_lora")


def check(extra: dict[str, Any], role: Role = Role.DECODE) -> None:
    check_settings(extra, role=role, known=KNOWN)


def refusal(name: str, value: object = 2) -> str:
    with pytest.raises(ConfigError) as raised:
        check({name: value})
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("max_num_seqs", "--max-running-requests"),
        ("max_num_batched_tokens", "--max-step-tokens"),
        ("tensor_parallel_size", "--tensor-parallel-size"),
        ("kv_transfer_config", "--kv-transport"),
        ("gpu_memory_utilization", "--gpu-memory-utilization"),
    ],
)
def test_what_is_an_option_of_ours_is_refused_with_that_option(name: str, flag: str) -> None:
    assert flag in refusal(name)


@pytest.mark.parametrize(
    "name", ["scheduler_cls", "additional_config", "kv_events_config", "scheduling_policy"]
)
def test_what_the_engine_could_not_work_without_is_refused_by_name(name: str) -> None:
    assert refusal(name, "x").startswith(f"vllm: {name}: slos-serve sets this itself")


@pytest.mark.parametrize("name", ["data_parallel_size", "data_parallel_rank"])
def test_data_parallelism_is_more_engines(name: str) -> None:
    assert "start more engines" in refusal(name)


@pytest.mark.parametrize("size", [2, "2"])
def test_only_a_decode_engine_may_be_no_pipeline(size: object) -> None:
    assert "--tensor-parallel-size" in refusal("pipeline_parallel_size", size)
    check({"pipeline_parallel_size": size}, Role.PREFILL)
    check({"pipeline_parallel_size": 1})


def test_a_name_that_vllm_does_not_know_gets_the_nearest_as_the_operator_would_write_it() -> None:
    assert "did you mean --max-running-requests?" in refusal("max_num_seq")
    assert "did you mean `enable_lora`?" in refusal("enable_loras", True)
    assert "did you mean" not in refusal("zzz")


def test_anything_else_is_vllm_s() -> None:
    check({"seed": 1, "kv_cache_dtype": "fp8", "enable_lora": True})


def test_every_refusal_is_one_line() -> None:
    for name in ("max_num_seqs", "scheduler_cls", "data_parallel_size", "nnodes", "zzz"):
        assert "\n" not in refusal(name)
