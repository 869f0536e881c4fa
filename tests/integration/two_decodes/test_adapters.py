"""LoRA adapters through the gateway: loaded on every engine, named as models."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.integration.node import Node
from tests.limits import ANSWER_LIMIT_S

pytestmark = pytest.mark.engines

RANK, HIDDEN, LAYERS = 8, 64, 2
ADAPTERS = ("poet", "judge")


def make_adapter(folder: Path, seed: int) -> Path:
    """Random weights for one projection of each layer of the tiny model, in PEFT's form."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    weights = {}
    for layer in range(LAYERS):
        name = f"base_model.model.model.layers.{layer}.self_attn.o_proj"
        for part, shape in (("lora_A", (RANK, HIDDEN)), ("lora_B", (HIDDEN, RANK))):
            weights[f"{name}.{part}.weight"] = random.standard_normal(shape, dtype=np.float32)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": ["o_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def post(node: Node, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{node.url}{path}", json=body, timeout=ANSWER_LIMIT_S)


async def ask(client: httpx.AsyncClient, model: str, way: str | None) -> tuple[str, str, str]:
    """The model, its answer, and the engine that decoded it."""
    slo = {"report": True} | ({"way": way} if way else {})
    body = {"model": model, "prompt": "a b c d", "max_tokens": 12, "temperature": 0, "slo": slo}
    answer = (await client.post("/v1/completions", json=body)).json()
    return model, answer["choices"][0]["text"], answer["slo"]["engines"]["decode"]


async def ask_all(node: Node, models: tuple[str, ...], each: int) -> list[tuple[str, str, str]]:
    ways = (None, "colocated", "disaggregated")
    async with httpx.AsyncClient(base_url=node.url, timeout=ANSWER_LIMIT_S) as client:
        asked = [ask(client, one, ways[at % 3]) for at in range(each) for one in models]
        return list(await asyncio.gather(*asked))


def test_two_adapters_answer_as_models_of_their_own_on_every_engine(
    node: Node, tmp_path: Path
) -> None:
    for seed, name in enumerate(ADAPTERS):
        loaded = post(
            node,
            "/v1/load_lora_adapter",
            lora_name=name,
            lora_path=str(make_adapter(tmp_path / name, seed)),
        )
        assert loaded.status_code == httpx.codes.OK, loaded.text
    listed = {one["id"] for one in httpx.get(f"{node.url}/v1/models").json()["data"]}

    seen = asyncio.run(ask_all(node, (node.model, *ADAPTERS), each=24))

    answers = {model: {text for name, text, _ in seen if name == model} for model, _, _ in seen}
    assert listed == {node.model, *ADAPTERS}
    assert [len(texts) for texts in answers.values()] == [1, 1, 1]
    assert len(set.union(*answers.values())) == 3
    for name in ADAPTERS:
        assert len({engine for model, _, engine in seen if model == name}) >= 2

    for name in ADAPTERS:
        gone = post(node, "/v1/unload_lora_adapter", lora_name=name)
        after = post(node, "/v1/completions", model=name, prompt="a", max_tokens=1)
        assert gone.status_code == httpx.codes.OK
        assert after.status_code == httpx.codes.NOT_FOUND


def test_an_adapter_that_no_engine_finds_is_refused_and_the_engines_go_on(node: Node) -> None:
    refused = post(node, "/v1/load_lora_adapter", lora_name="nobody", lora_path="/nowhere")

    assert refused.status_code == httpx.codes.NOT_FOUND, refused.text
    assert "nobody" in refused.text
    assert node.answers("colocated")


def test_what_pooling_models_answer_is_not_served(node: Node) -> None:
    for path in ("/v1/embeddings", "/score", "/rerank"):
        refused = post(node, path, model=node.model, input="a")

        assert refused.status_code == httpx.codes.NOT_FOUND
        assert "pooling" in refused.json()["error"]["message"]
