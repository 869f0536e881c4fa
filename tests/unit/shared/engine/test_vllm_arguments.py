from pathlib import Path
from typing import Any

import pytest
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext

from shared.engine.config import EngineOptions, hold_port
from shared.engine.environment import engine_environment
from shared.engine.speculation import Speculation
from shared.engine.vllm_core import EngineCore, engine_arguments, engine_config
from shared.engines import Role
from shared.errors import ConfigError
from shared.kv_transfer.settings import KvTransport
from shared.models.tiny import make_tiny_model


def arguments(role: Role = Role.DECODE, **options: object) -> dict[str, object]:
    return engine_arguments(
        EngineOptions(**options),  # type: ignore[arg-type] # options by name
        role=role,
        engine_id="e1",
        link="ipc:///link",
        model_path="/model",
    )


def test_a_failed_transfer_is_computed_again_in_either_role() -> None:
    for role, word in ((Role.PREFILL, "kv_producer"), (Role.DECODE, "kv_consumer")):
        transfer = arguments(role)["kv_transfer_config"]

        assert isinstance(transfer, dict)
        assert transfer["kv_load_failure_policy"] == "recompute"
        assert transfer["kv_role"] == word


def test_an_engine_without_transfer_has_no_connector() -> None:
    assert "kv_transfer_config" not in arguments(kv_transport=KvTransport.NONE)


def test_speculation_is_off_unless_asked_for() -> None:
    assert "speculative_config" not in arguments()
    speculative = arguments(speculation_tokens=4)["speculative_config"]

    assert isinstance(speculative, dict)
    assert speculative["num_speculative_tokens"] == 4


def test_drafts_may_come_from_a_model_of_their_own(tmp_path: Path) -> None:
    draft = make_tiny_model(tmp_path)
    speculative = arguments(
        speculation_tokens=2, speculation=Speculation.DRAFT_MODEL, speculation_model=str(draft)
    )["speculative_config"]

    assert speculative == {
        "method": "draft_model",
        "num_speculative_tokens": 2,
        "model": str(draft),
    }


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({}, 0),
        ({"speculation_tokens": 4}, 4),
        ({"vllm": {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}}}, 3),
    ],
)
def test_the_most_drafted_tokens_are_those_of_vllms_configuration(
    options: dict[str, Any], most: int, tmp_path: Path
) -> None:
    config = engine_config(
        EngineOptions(kv_transport=KvTransport.NONE, **options),
        role=Role.DECODE,
        engine_id="e1",
        link="ipc:///link",
        model_path=str(make_tiny_model(tmp_path)),
    )
    client: Any = None

    core = EngineCore(client=client, config=config, engine_id="e1")

    assert core.max_speculation_tokens == most


def test_speculation_that_is_asked_for_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="say it once"):
        arguments(speculation_tokens=2, vllm={"speculative_config": {"method": "ngram"}})


@pytest.mark.parametrize(("method", "told"), [("suffix", "arctic-inference"), ("mtp", "mtp")])
def test_a_method_that_cannot_run_here_is_refused_in_one_line(
    method: str, told: str, tmp_path: Path
) -> None:
    options = EngineOptions(
        speculation_tokens=2, speculation=Speculation(method), kv_transport=KvTransport.NONE
    )

    with pytest.raises(ConfigError, match=told) as refused:
        engine_config(
            options,
            role=Role.DECODE,
            engine_id="e1",
            link="ipc:///link",
            model_path=str(make_tiny_model(tmp_path)),
        )

    assert "\n" not in str(refused.value)


def test_what_the_operator_passes_to_vllm_goes_last() -> None:
    told = arguments(vllm={"speculative_config": {"method": "suffix"}, "seed": 3})

    assert told["speculative_config"] == {"method": "suffix"}
    assert told["seed"] == 3


def test_vllm_s_own_names_are_checked_before_an_engine_starts() -> None:
    with pytest.raises(ConfigError, match=r"vllm: max_num_seq: .* did you mean"):
        arguments(vllm={"max_num_seq": 3})


def test_on_a_gpu_the_size_of_a_step_is_vllm_s_choice_for_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = ("max_num_seqs", "max_num_batched_tokens")
    on_cpu = arguments()
    monkeypatch.setattr(current_platform, "is_cpu", lambda: False)
    on_gpu = arguments()

    assert [on_cpu[one] for one in sizes] == [64, 2048]
    assert [on_gpu[one] for one in sizes] == [None, None]
    assert [arguments(max_running_requests=3, max_step_tokens=7)[one] for one in sizes] == [3, 7]


@pytest.mark.parametrize(
    ("name", "gib", "requests", "tokens"),
    [("NVIDIA H100 80GB HBM3", 80, 1024, 8192), ("NVIDIA L4", 24, 256, 2048)],
)
def test_vllm_has_such_choices_for_each_device(
    name: str, gib: int, requests: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = current_platform
    monkeypatch.setattr(device, "is_cpu", lambda: False)
    monkeypatch.setattr(device, "get_device_name", lambda: name, raising=False)
    monkeypatch.setattr(device, "get_device_total_memory", lambda: gib << 30, raising=False)

    most_tokens, most_requests = AsyncEngineArgs.get_batch_defaults(world_size=1)

    assert most_requests[UsageContext.OPENAI_API_SERVER] == requests
    assert most_tokens[UsageContext.OPENAI_API_SERVER] == tokens


def test_a_share_of_the_gpu_is_named_only_where_it_was_given() -> None:
    assert "gpu_memory_utilization" not in arguments()
    assert arguments(gpu_memory_utilization=0.4)["gpu_memory_utilization"] == 0.4


def test_the_side_channel_is_where_the_options_say() -> None:
    environ = engine_environment(EngineOptions(kv_host="127.0.0.1", nixl_port=9999), cpu=False)

    assert environ["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "127.0.0.1"
    assert environ["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "9999"


def test_a_port_of_zero_becomes_a_free_one() -> None:
    options = EngineOptions(port=0, kv_port=0, nixl_port=0).settled()

    assert options.port > 0
    assert options.kv_port > 0
    with hold_port("127.0.0.1", options.port) as held:
        held.listen()
        with pytest.raises(ConfigError, match=r"taken.*--port"):
            hold_port("127.0.0.1", options.port)


@pytest.mark.parametrize("caches", [True, False])
def test_an_engine_tells_of_its_prefix_cache_where_it_has_one(caches: bool) -> None:
    told = arguments(vllm={"enable_prefix_caching": caches})

    assert ("kv_events_config" in told) is caches
    assert "kv_events_config" in arguments()
