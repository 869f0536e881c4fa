"""Asks an engine host over gRPC, tokens in and out, without gateway and planner."""

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine import EngineCoreRequest

from services.bench.answers import Answer, AnswerFailed, Stopwatch
from shared.clock import wall_time_s
from shared.engine.wire import decode_outputs, encode_request
from shared.rpc import slos_pb2 as pb
from shared.rpc.channels import open_channel
from shared.rpc.identity import own_identity
from shared.rpc.slos_pb2_grpc import EngineStub


@asynccontextmanager
async def engine_client(
    address: str, now: Callable[[], float], limit_s: float
) -> AsyncIterator["EngineClient"]:
    async with open_channel(address, own_identity()) as channel:
        yield EngineClient(generate=EngineStub(channel).Generate, now=now, limit_s=limit_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineClient:
    """One engine. `now` is a clock in seconds."""

    generate: "grpc.aio.UnaryStreamMultiCallable[pb.GenerateRequest, pb.GenerateReply]"
    now: Callable[[], float]
    limit_s: float

    async def stream(self, prompt: Sequence[int], tokens: int) -> Answer:
        """The times at which the first and the last token came. Raises AnswerFailed."""
        watch = Stopwatch(self.now())
        message = pb.GenerateRequest(request=encode_request(_request(prompt, tokens)))
        try:
            async for reply in self.generate(message, timeout=self.limit_s):
                count = sum(len(output.new_token_ids) for output in decode_outputs(reply.outputs))
                watch.note(count, self.now())
        except grpc.aio.AioRpcError as error:
            raise AnswerFailed(f"The engine failed a request: {error.details()}") from error
        return watch.answer(tokens)


def _request(prompt: Sequence[int], tokens: int) -> EngineCoreRequest:
    return EngineCoreRequest(
        request_id=f"bench-{uuid.uuid4().hex}",
        prompt_token_ids=list(prompt),
        mm_features=None,
        sampling_params=SamplingParams(
            max_tokens=tokens,
            temperature=0,
            ignore_eos=True,
            output_kind=RequestOutputKind.DELTA,
        ),
        pooling_params=None,
        arrival_time=wall_time_s(),
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )
