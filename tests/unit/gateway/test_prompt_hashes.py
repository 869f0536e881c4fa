"""The gateway's hashes are those of vLLM's prefix cache."""

from typing import Any

import pytest
from vllm import SamplingParams
from vllm.lora.request import LoRARequest
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.request import Request

from services.gateway.prompt_hashes import prompt_hashes
from shared.engine.vllm_prefixes import number_of
from shared.engines import EngineView
from tests.unit.planner.builders import make_engine

TELLING = EngineView(description=make_engine("telling", prefix_span_tokens=64))
SILENT = EngineView(description=make_engine("silent"))


def make_request(tokens: int = 200, **changed: Any) -> EngineCoreRequest:
    fields: dict[str, Any] = {
        "request_id": "r",
        "prompt_token_ids": list(range(1000, 1000 + tokens)),
        "mm_features": None,
        "sampling_params": SamplingParams(max_tokens=5),
        "pooling_params": None,
        "arrival_time": 0.0,
        "lora_request": None,
        "cache_salt": None,
        "data_parallel_rank": None,
    }
    return EngineCoreRequest(**(fields | changed))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"cache_salt": "tenant"},
        {"lora_request": LoRARequest(lora_name="a", lora_int_id=1, lora_path="/a")},
        {"tokens": 9000},
    ],
    ids=["plain", "salt", "lora", "long"],
)
async def test_each_span_has_the_hash_of_its_last_block_in_vllm(changed: dict[str, Any]) -> None:
    request = make_request(**changed)
    init_none_hash(sha256)
    there = Request.from_engine_core_request(request, get_request_block_hasher(16, sha256))

    found = await prompt_hashes(request, [SILENT, TELLING])

    assert found is not None
    assert found.span_tokens == 64
    assert list(found.hashes) == [number_of(one) for one in there.block_hashes[3::4]]


async def test_prompts_of_other_tenants_are_other_prompts() -> None:
    found = [await prompt_hashes(make_request(cache_salt=salt), [TELLING]) for salt in ("a", "b")]

    hashes = [one for prompt in found if prompt is not None for one in prompt.hashes]
    assert len(hashes) == len(set(hashes)) == 6


@pytest.mark.parametrize(
    ("request_", "engines"),
    [
        (make_request(), []),
        (make_request(), [SILENT]),
        (make_request(sampling_params=SamplingParams(prompt_logprobs=1)), [TELLING]),
    ],
    ids=["no engine", "nothing is told", "reads no cache"],
)
async def test_nothing_is_hashed_that_finds_nothing(
    request_: EngineCoreRequest, engines: list[EngineView]
) -> None:
    assert await prompt_hashes(request_, engines) is None
