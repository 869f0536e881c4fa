"""One stream for all requests of a gateway, over real gRPC to an engine of a few lines."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason

from services.gateway.engine_links import EngineLinks
from shared.clock import MonotonicClock
from shared.engine.replies import Delivery, joined
from shared.engine.streams import RequestEnded, Streams
from shared.engine.wire import decode_request
from shared.errors import EngineDraining, EngineLost, EngineUnreachable, InvalidRequest, SlosError
from shared.requests import EngineRef
from shared.rpc import slos_pb2 as pb
from shared.rpc.channels import bind, make_server
from shared.rpc.multiplex import converse
from shared.rpc.slos_pb2_grpc import EngineServicer, add_EngineServicer_to_server

TOKENS = 5


@dataclass
class Engine(EngineServicer):
    """Steps when told to; each step gives one token to each request."""

    streams: Streams[Delivery] = field(default_factory=Streams)
    messages: int = 0
    aborted: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)

    async def Serve(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override] # noqa: N802
        with self.streams.stream() as replies:

            async def write(message: pb.EngineReplies) -> None:
                self.messages += 1
                await context.write(message)

            async def take(message: pb.EngineOrders) -> None:
                for order in message.orders:
                    self.take(order, replies)

            await converse(replies, joined, write, request_iterator, take)
            for name in self.streams.of(replies):
                self.streams.remove(name)

    def take(self, order: pb.EngineOrder, replies: Any) -> None:
        if order.HasField("abort"):
            self.aborted.append(order.request_id)
            self.streams.remove(order.request_id)
        elif order.HasField("release"):
            self.released.append(order.request_id)
        else:
            self.started.append(decode_request(order.start.request).request_id)
            try:
                self.streams.add(order.request_id, replies)
            except SlosError as error:
                replies.put(RequestEnded(order.request_id, error))

    async def Generate(self, request: Any, context: Any) -> Any: ...  # type: ignore[override] # noqa: N802

    async def Describe(self, request: Any, context: Any) -> Any: ...  # noqa: N802

    async def Drain(self, request: Any, context: Any) -> Any: ...  # noqa: N802

    async def Undrain(self, request: Any, context: Any) -> Any: ...  # noqa: N802

    async def LoadAdapter(self, request: Any, context: Any) -> Any: ...  # noqa: N802

    async def Health(self, request: Any, context: Any) -> Any: ...  # noqa: N802

    def step(self, number: int) -> None:
        ends = FinishReason.LENGTH if number == TOKENS - 1 else None
        for name in [*self.streams.open]:
            token = 100 * int(name) + number
            output = EngineCoreOutput(name, [token], finish_reason=ends)
            self.streams.give(name, Delivery(output, 0.0, ""))
            if ends:
                self.streams.remove(name)


@asynccontextmanager
async def served(engine: EngineServicer) -> AsyncIterator[tuple[EngineRef, EngineLinks, Any]]:
    server, links = make_server(), EngineLinks(MonotonicClock())
    add_EngineServicer_to_server(engine, server)
    port = bind(server, "127.0.0.1", 0)
    await server.start()
    try:
        yield EngineRef(name="e", engine_id="e", address=f"127.0.0.1:{port}"), links, server
    finally:
        await links.close()
        await server.stop(None)


def request(name: str) -> EngineCoreRequest:
    return EngineCoreRequest(
        request_id=name,
        prompt_token_ids=[1],
        mm_features=None,
        sampling_params=SamplingParams(max_tokens=TOKENS),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )


async def tokens_of(links: EngineLinks, engine: EngineRef, name: str) -> list[int]:
    found: list[int] = []
    async for reply in links.generate(engine, request(name), pb.EngineTerms()):
        for output in reply.outputs:
            found += output.new_token_ids
    return found


async def until(true: Any) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for is in the server's hands
            await asyncio.sleep(0.01)


async def test_a_step_is_one_message_and_each_request_gets_its_own_tokens_in_order() -> None:
    engine = Engine()
    async with served(engine) as (ref, links, _):
        asking = [asyncio.create_task(tokens_of(links, ref, str(one))) for one in range(20)]
        await until(lambda: len(engine.streams.open) == 20)
        for number in range(TOKENS):
            engine.step(number)
            await asyncio.sleep(0.02)
        answers = await asyncio.wait_for(asyncio.gather(*asking), 10)

    assert answers == [[100 * one + number for number in range(TOKENS)] for one in range(20)]
    assert engine.messages <= TOKENS


async def test_a_client_that_leaves_aborts_its_own_request_alone() -> None:
    engine = Engine()
    async with served(engine) as (ref, links, _):
        asking = [asyncio.create_task(tokens_of(links, ref, str(one))) for one in range(2)]
        await until(lambda: len(engine.streams.open) == 2)
        asking[0].cancel()
        await until(lambda: engine.aborted == ["0"])
        for number in range(TOKENS):
            engine.step(number)

        assert await asyncio.wait_for(asking[1], 10) == [100 + number for number in range(TOKENS)]


async def test_a_stream_that_breaks_fails_its_requests_and_the_next_opens_another() -> None:
    engine = Engine()
    async with served(engine) as (ref, links, _):
        asking = asyncio.create_task(tokens_of(links, ref, "0"))
        await until(lambda: len(engine.streams.open) == 1)
        engine.streams.end()
        with pytest.raises(EngineLost):
            await asyncio.wait_for(asking, 10)
        await until(lambda: not engine.streams.open)

        again = asyncio.create_task(tokens_of(links, ref, "1"))
        await until(lambda: len(engine.streams.open) == 1)
        for number in range(TOKENS):
            engine.step(number)
        assert len(await asyncio.wait_for(again, 10)) == TOKENS


async def test_a_refusal_reaches_the_request_that_was_refused() -> None:
    engine = Engine()
    async with served(engine) as (ref, links, _):
        asking = asyncio.create_task(tokens_of(links, ref, "0"))
        await until(lambda: len(engine.streams.open) == 1)
        engine.streams.draining = True

        with pytest.raises(EngineDraining, match="being stopped"):
            await asyncio.wait_for(tokens_of(links, ref, "1"), 10)

        for number in range(TOKENS):
            engine.step(number)
        assert len(await asyncio.wait_for(asking, 10)) == TOKENS


async def test_an_answer_that_has_ended_is_not_aborted() -> None:
    engine = Engine()
    async with served(engine) as (ref, links, _):
        for name in ("0", "1"):
            asking = asyncio.create_task(tokens_of(links, ref, name))
            await until(lambda: len(engine.streams.open) == 1)
            for number in range(TOKENS):
                engine.step(number)
            await asyncio.wait_for(asking, 10)
        links.release(ref, "9")  # comes after any abort of the others
        await until(lambda: engine.released == ["9"])

    assert engine.started == ["0", "1"]
    assert engine.aborted == []


async def test_a_prefill_that_is_wound_up_is_aborted_before_its_blocks_are_released() -> None:
    engine = Engine()
    async with served(engine) as (ref, links, _):
        reading: Any = asyncio.create_task(tokens_of(links, ref, "0"))
        await until(lambda: len(engine.streams.open) == 1)

        links.wind_up(ref, "0", reading)

        await until(lambda: engine.released == ["0"])
        assert engine.aborted == ["0"]


class WithoutStream(Engine):
    """An engine of a version without `Serve`."""

    async def Serve(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override] # noqa: N802
        del request_iterator
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


async def test_an_engine_of_a_version_without_the_stream_counts_as_unreachable() -> None:
    async with served(WithoutStream()) as (ref, links, _):
        with pytest.raises(EngineUnreachable):
            await asyncio.wait_for(tokens_of(links, ref, "0"), 10)


async def test_a_request_that_no_message_holds_is_refused_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.gateway.engine_stream.MESSAGE_LIMIT_BYTES", 100)
    async with served(Engine()) as (ref, links, _):
        with pytest.raises(InvalidRequest, match="larger than"):
            await asyncio.wait_for(tokens_of(links, ref, "0"), 10)
