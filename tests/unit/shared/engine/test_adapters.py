"""LoRA adapters on one engine, by its service alone."""

from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from vllm import SamplingParams
from vllm.lora.request import LoRARequest
from vllm.v1.engine import EngineCoreRequest

from shared.clock import MonotonicClock
from shared.engine.service import EngineService
from shared.engine.state import EngineState
from shared.engine.wire import encode_adapter, encode_request
from shared.errors import ConfigError
from shared.rpc import slos_pb2 as pb
from tests.unit.planner.builders import make_engine

POET = LoRARequest("poet", 7, "/adapters/poet")


class Aborted(Exception):
    pass


class Context:
    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(f"{code.name}: {details}")


@dataclass(slots=True)
class Core:
    takes_adapters: bool = True
    fault: str = ""
    loaded: list[LoRARequest] = field(default_factory=list)

    async def load_adapter(self, adapter: LoRARequest) -> None:
        if self.fault:
            raise ConfigError(self.fault)
        self.loaded.append(adapter)


def service(core: Any) -> EngineService:
    state, none = EngineState(make_engine()), None
    return EngineService(core, none, state, MonotonicClock(), lambda _: None, lambda _: None)  # type: ignore[arg-type] # it answers no request here


async def load(core: Core) -> None:
    message = pb.LoadAdapterRequest(adapter=encode_adapter(POET))
    await service(core).LoadAdapter(message, Context())  # type: ignore[arg-type]


async def test_an_adapter_arrives_at_the_engine_core_as_it_was_named() -> None:
    core = Core()

    await load(core)

    (loaded,) = core.loaded
    assert (loaded.lora_name, loaded.lora_int_id, loaded.lora_path) == ("poet", 7, "/adapters/poet")


async def test_what_vllm_says_of_an_adapter_reaches_the_caller() -> None:
    with pytest.raises(Aborted, match="INVALID_ARGUMENT: no such folder"):
        await load(Core(fault="no such folder"))


async def test_an_engine_without_lora_names_the_option_that_is_missing() -> None:
    core = Core(takes_adapters=False)

    with pytest.raises(Aborted, match=r"FAILED_PRECONDITION.*enable_lora: true"):
        await load(core)

    assert core.loaded == []


async def test_a_request_with_an_adapter_never_reaches_a_core_without_lora() -> None:
    request = EngineCoreRequest(
        request_id="r1",
        prompt_token_ids=[1, 2],
        mm_features=None,
        sampling_params=SamplingParams(max_tokens=1),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=POET,
        cache_salt=None,
        data_parallel_rank=None,
    )
    message = pb.GenerateRequest(request=encode_request(request))
    replies = service(Core(takes_adapters=False)).Generate(message, Context())  # type: ignore[arg-type]

    with pytest.raises(Aborted, match=r"INVALID_ARGUMENT.*enable_lora: true"):
        await anext(replies)
