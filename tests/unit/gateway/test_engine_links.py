import pytest
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest

from services.gateway.engine_links import EngineLinks
from shared.clock import MonotonicClock
from shared.errors import InvalidRequest
from shared.requests import EngineRef
from shared.rpc import slos_pb2 as pb

ENGINE = EngineRef(name="decode-0", engine_id="d", address="127.0.0.1:1")


def request(**params: int) -> EngineCoreRequest:
    return EngineCoreRequest(
        request_id="r",
        prompt_token_ids=[1],
        mm_features=None,
        sampling_params=SamplingParams(**params),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )


async def test_a_number_beyond_64_bits_is_the_clients_error() -> None:
    links = EngineLinks(MonotonicClock())

    with pytest.raises(InvalidRequest, match="64 bits"):
        await anext(links.generate(ENGINE, request(top_k=2**64), pb.EngineTerms()))
