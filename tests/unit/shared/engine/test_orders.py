"""The orders of gateways on an engine core of a few lines."""

from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from vllm import SamplingParams
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason

from shared.clock import MonotonicClock
from shared.engine.orders import Orders
from shared.engine.replies import Delivery, joined
from shared.engine.streams import RequestEnded, Streams
from shared.engine.wire import decode_outputs, encode_request
from shared.errors import EngineLost
from shared.rpc import slos_pb2 as pb

THIS, EARLIER = "this start", "an earlier start"


@dataclass
class Core:
    takes_adapters: bool = False
    added: list[str] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    error: Exception | None = None

    async def add(self, request: EngineCoreRequest) -> None:
        if self.error is not None:
            raise self.error
        self.added.append(request.request_id)

    async def abort(self, request_ids: list[str]) -> None:
        self.aborted += request_ids


@dataclass
class Engine:
    core: Core = field(default_factory=Core)
    released: list[str] = field(default_factory=list)
    streams: Streams[Delivery] = field(default_factory=Streams)

    @property
    def orders(self) -> Orders:
        core: Any = self.core
        return Orders(
            core=core,
            engine_id=THIS,
            clock=MonotonicClock(),
            release=self.released.extend,
            streams=self.streams,
        )


def start(name: str, engine_id: str = THIS, **changed: Any) -> pb.EngineOrder:
    request = EngineCoreRequest(
        request_id=name,
        prompt_token_ids=[1],
        mm_features=None,
        sampling_params=SamplingParams(max_tokens=4),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
        **changed,
    )
    message = pb.GenerateRequest(request=encode_request(request), engine_id=engine_id)
    return pb.EngineOrder(request_id=name, start=message)


def abort(name: str) -> pb.EngineOrder:
    return pb.EngineOrder(request_id=name, abort=pb.AbortOrder())


def release(name: str, engine_id: str) -> pb.EngineOrder:
    return pb.EngineOrder(request_id=name, release=pb.ReleaseOrder(engine_id=engine_id))


def message(*orders: pb.EngineOrder) -> pb.EngineOrders:
    return pb.EngineOrders(orders=orders)


async def test_orders_are_carried_out_in_their_order() -> None:
    engine = Engine()
    async with engine.orders.stream() as replies:
        await engine.orders.take(message(start("a"), start("b"), abort("a")), replies)

        assert engine.core.added == ["a", "b"]
        assert engine.core.aborted == ["a"]
        assert list(engine.streams.open) == ["b"]


async def test_a_gateway_aborts_its_own_requests_alone() -> None:
    engine = Engine()
    async with engine.orders.stream() as one, engine.orders.stream() as other:
        await engine.orders.take(message(start("a")), one)

        await engine.orders.take(message(abort("a"), abort("unknown")), other)

        assert engine.core.aborted == []


async def test_a_stream_that_ends_aborts_and_frees_what_it_left() -> None:
    engine = Engine()
    async with engine.orders.stream() as stays:
        await engine.orders.take(message(start("stays")), stays)
        async with engine.orders.stream() as leaves:
            await engine.orders.take(message(start("a"), start("b")), leaves)

        assert engine.core.aborted == ["a", "b"]
        assert engine.released == ["a", "b"]
        assert list(engine.streams.open) == ["stays"]


async def test_blocks_of_an_earlier_start_are_not_released() -> None:
    engine = Engine()
    async with engine.orders.stream() as replies:
        await engine.orders.take(message(release("a", EARLIER), release("b", THIS)), replies)

    assert engine.released == ["b"]


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (start("x", EARLIER), grpc.StatusCode.NOT_FOUND),
        (
            pb.EngineOrder(request_id="x", start=pb.GenerateRequest(request=[b"\x01"])),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (start("runs"), grpc.StatusCode.ALREADY_EXISTS),
    ],
)
async def test_a_request_that_cannot_start_ends_alone_with_its_code(
    order: pb.EngineOrder, code: grpc.StatusCode
) -> None:
    engine = Engine()
    async with engine.orders.stream() as replies:
        await engine.orders.take(message(start("runs"), order, start("later")), replies)
        (told,) = joined(await replies.take())

    assert engine.core.added == ["runs", "later"]
    assert [(end.request_id, end.code) for end in told.ends] == [(order.request_id, code.value[0])]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineLost("dead"), grpc.StatusCode.UNAVAILABLE),
        (ValueError("a fault of ours"), grpc.StatusCode.INTERNAL),
    ],
)
async def test_a_request_that_the_core_does_not_take_ends_and_may_be_sent_again(
    error: Exception, code: grpc.StatusCode
) -> None:
    engine = Engine(Core(error=error))
    async with engine.orders.stream() as replies:
        await engine.orders.take(message(start("a")), replies)
        (told,) = joined(await replies.take())
        engine.core.error = None
        await engine.orders.take(message(start("a")), replies)

    assert [end.code for end in told.ends] == [code.value[0]]
    assert engine.core.added == ["a"]


async def test_a_request_without_outputs_ends_without_an_error() -> None:
    engine = Engine()
    async with engine.orders.stream() as replies:
        await engine.orders.take(message(start("a", abort_immediately=True)), replies)

        assert await replies.take() == [RequestEnded("a")]
    assert engine.core.added == ["a"]


def test_outputs_share_a_message_by_the_weights_that_gave_them() -> None:
    def given(name: str, at_s: float, weights: str) -> Delivery:
        last = EngineCoreOutput(name, [7], finish_reason=FinishReason.LENGTH)
        return Delivery(last, at_s, weights)

    items = [given("a", 1.0, "v1"), given("b", 2.0, "v1"), given("a", 3.0, "v2")]

    (told,) = joined([*items, RequestEnded("c", EngineLost("gone"))])

    found = [
        ([one.request_id for one in decode_outputs(reply.outputs)], reply.core_time_s)
        for reply in told.replies
    ]
    assert found == [(["a", "b"], 2.0), (["a"], 3.0)]
    assert [reply.weight_version for reply in told.replies] == ["v1", "v2"]
    assert [end.request_id for end in told.ends] == ["c"]
