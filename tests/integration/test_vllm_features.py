"""vLLM's features under our scheduler, on real engines: a draft model, two KV cache groups."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.models.tiny import make_tiny_model
from shared.rpc import slos_pb2 as pb
from tests.integration.engine_host import Host, engine_host
from tests.limits import ANSWER_LIMIT_S

pytestmark = pytest.mark.engines

DRAFTED = 3
BLOCK_TOKENS = 32
MODEL_LEN = 1024


def test_a_draft_model_drafts_as_far_as_each_class_may(tmp_path: Path) -> None:
    draft = make_tiny_model(tmp_path / "draft")
    with engine_host(
        tmp_path, speculation="draft_model", speculation_model=draft, speculation_tokens=DRAFTED
    ) as host:
        (engine,) = host.planner.registered
        host.set_policy(pb.Policy(speculation_tokens=0))
        plain, _ = host.generate("same", max_tokens=40, terms=terms("chat"))
        cut = host.reported("same")
        host.set_policy(pb.Policy(speculation_by_class={"chat": 1, "code": DRAFTED}))
        tokens, most = {}, {}
        for name in ("chat", "code"):
            tokens[name], _ = host.generate("same", max_tokens=40, terms=terms(name))
            reports = host.reported("same")
            most[name] = max(one.speculated_tokens for one in reports)
            drafts = [one for each in reports for one in each.drafts]
            assert {one.class_name for one in drafts} == {name}
            # The draft model is the model itself, so that it is right.
            assert sum(one.accepted_tokens for one in drafts) >= 0.9 * 40 * most[name] / (
                1 + most[name]
            )

    assert engine.max_speculation_tokens == DRAFTED
    assert sum(one.speculated_tokens for one in cut) == 0
    assert most == {"chat": 1, "code": DRAFTED}
    assert tokens == {"chat": plain, "code": plain}


def test_two_kv_groups_hold_what_a_promised_load_was_promised(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config |= {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": MODEL_LEN}
    (model / "config.json").write_text(json.dumps(config))
    with engine_host(
        tmp_path,
        model=model,
        max_model_len=MODEL_LEN,
        max_running_requests=16,
        vllm=json.dumps({"num_gpu_blocks_override": 161}),
    ) as host:
        (engine,) = host.planner.registered
        evicted = _evicted_by_a_full_load(host, engine)
        free = host.engine.Health(pb.HealthRequest(), timeout=ANSWER_LIMIT_S).free_kv_blocks

    assert engine.block_size_tokens == BLOCK_TOKENS
    assert engine.kv_blocks == 160 // 2
    assert evicted == 0
    assert free == engine.kv_blocks


def _evicted_by_a_full_load(host: Host, engine: pb.EngineDescription) -> int:
    """Promised requests that fill the KV to the last block as the planner counts them."""
    each_blocks = 10
    names = [f"full-{number}" for number in range(engine.kv_blocks // each_blocks)]
    with ThreadPoolExecutor(len(names)) as pool:
        answers = [
            pool.submit(
                host.generate,
                name,
                max_tokens=each_blocks * BLOCK_TOKENS - 302,
                terms=terms("chat"),
            )
            for name in names
        ]
        lengths = {len(one.result()[0]) for one in answers}
    assert lengths == {each_blocks * BLOCK_TOKENS - 302}
    host.reported(names[-1])
    return sum(one.evicted for one in host.planner.reports)


def terms(class_name: str) -> pb.EngineTerms:
    return pb.EngineTerms(class_name=class_name, ttft_s=60.0, tpot_s=5.0)
