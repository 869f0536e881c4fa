"""gRPC calls to engines, with one channel per address and gRPC's errors as SlosErrors."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Coroutine
from dataclasses import dataclass
from typing import Any

import grpc
from vllm.lora.request import LoRARequest
from vllm.v1.engine import EngineCoreRequest

from services.gateway.continuation import Prefilled
from services.gateway.engine_calls import Reply
from services.gateway.shared_outputs import Replies, SharedOutputs, in_our_words, reply_of
from shared.clock import Clock
from shared.engine.wire import decode_outputs, encode_adapter, encode_request
from shared.errors import EngineUnreachable, InvalidRequest, SlosError
from shared.requests import EngineRef
from shared.rpc import slos_pb2 as pb
from shared.rpc.channels import open_channel
from shared.rpc.identity import Identity
from shared.rpc.slos_pb2_grpc import EngineStub

_ADAPTER_LIMIT_S = 60.0  # its weights come from a disk
_ADAPTER_REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)


@dataclass(slots=True)
class _Link:
    channel: grpc.aio.Channel
    generate: "grpc.aio.UnaryStreamMultiCallable[pb.GenerateRequest, pb.GenerateReply]"
    abort: "grpc.aio.UnaryUnaryMultiCallable[pb.AbortRequest, pb.AbortReply]"
    release: "grpc.aio.UnaryUnaryMultiCallable[pb.ReleaseRequest, pb.ReleaseReply]"
    health: "grpc.aio.UnaryUnaryMultiCallable[pb.HealthRequest, pb.HealthReply]"
    load_adapter: "grpc.aio.UnaryUnaryMultiCallable[pb.LoadAdapterRequest, pb.LoadAdapterReply]"
    outputs: SharedOutputs
    calls: int = 0
    used_at_s: float = 0.0

    async def close(self) -> None:
        await self.outputs.close()
        await self.channel.close(None)


class EngineLinks:
    """Calls engines by address.

    `connect_limit_s` limits the wait for a connection, `clean_up_limit_s` each background call.
    """

    def __init__(
        self,
        clock: Clock,
        identity: Identity | None = None,
        *,
        connect_limit_s: float = 2.0,
        clean_up_limit_s: float = 30.0,
    ) -> None:
        self._clock = clock
        self._identity = identity
        self._connect_limit_s = connect_limit_s
        self._clean_up_limit_s = clean_up_limit_s
        self._links: dict[str, _Link] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def generate(
        self, engine: EngineRef, request: EngineCoreRequest, terms: pb.EngineTerms
    ) -> AsyncGenerator[Reply, None]:
        """Yields replies until the request has ended; closing the generator aborts the request.

        Raises EngineLost, EngineUnreachable, EngineDraining, and InvalidRequest when a number is
        beyond 64 bits.
        """
        message = pb.GenerateRequest(
            request=_encoded(request), terms=terms, engine_id=engine.engine_id
        )
        link = self._link(engine.address)
        link.calls += 1
        try:
            await self._connect(engine, link)
            if not request.abort_immediately:  # such a request has no outputs
                message.reader = await link.outputs.reader()
            call = link.generate(message)
            if message.reader:
                replies = link.outputs.replies(engine, request.request_id, call)
            else:
                replies = _own_replies(engine, call)
            try:
                async for reply in replies:
                    yield reply
            finally:
                call.cancel()
                await replies.aclose()
        finally:
            link.calls -= 1
            link.used_at_s = self._clock.now()

    async def answers(self, engine: EngineRef) -> bool:
        """Whether the engine answers and its core lives. Raises SlosError if the call fails."""
        try:
            reply = await self._link(engine.address).health(pb.HealthRequest())
        except grpc.aio.AioRpcError as error:
            raise in_our_words(engine, error.code(), error.details()) from error
        return reply.serving or reply.draining

    async def load_adapter(self, engine: EngineRef, adapter: LoRARequest) -> None:
        """Raises EngineLost, and InvalidRequest with the engine's reason."""
        message = pb.LoadAdapterRequest(adapter=encode_adapter(adapter))
        try:
            await self._link(engine.address).load_adapter(message, timeout=_ADAPTER_LIMIT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() in _ADAPTER_REFUSED:
                why = f"{engine.name} does not load it: {error.details()}"
                raise InvalidRequest(why, param="lora_path") from error
            raise in_our_words(engine, error.code(), error.details()) from error

    def release(self, engine: EngineRef, request_id: str) -> None:
        """Frees, in the background, KV blocks that `engine` holds and no engine will fetch.

        If that fails, the lease of the blocks expires.
        """
        self._start(self._release(engine, request_id))

    def wind_up(
        self, engine: EngineRef, request_id: str, prefill: asyncio.Task[Prefilled | None]
    ) -> None:
        """Aborts a prefill on `engine` in the background and frees its blocks."""
        self._start(self._wind_up(engine, request_id, prefill))

    async def prune(self, addresses: Collection[str], *, idle_s: float) -> None:
        """Closes the channels to engines that are not in `addresses` and unused for `idle_s`."""
        oldest_s = self._clock.now() - idle_s
        gone = [
            address
            for address, link in self._links.items()
            if address not in addresses and link.calls == 0 and link.used_at_s < oldest_s
        ]
        for address in gone:
            await self._links.pop(address).close()

    async def close(self) -> None:
        """Ends every call and all work in the background."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for link in self._links.values():
            await link.close()
        self._links.clear()

    def _link(self, address: str) -> _Link:
        link = self._links.get(address)
        if link is None:
            channel = open_channel(address, self._identity)
            stub = EngineStub(channel)
            link = _Link(
                channel=channel,
                generate=stub.Generate,
                abort=stub.Abort,
                release=stub.Release,
                health=stub.Health,
                load_adapter=stub.LoadAdapter,
                outputs=SharedOutputs(stub.Outputs),
            )
            self._links[address] = link
        return link

    async def _connect(self, engine: EngineRef, link: _Link) -> None:
        if link.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return
        try:
            async with asyncio.timeout(self._connect_limit_s):
                await link.channel.channel_ready()
        except TimeoutError as error:
            raise EngineUnreachable(
                f"No connection to {engine.address} within {self._connect_limit_s:g} s."
            ) from error

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._bounded(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _bounded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(self._clean_up_limit_s):
                await work
        except (TimeoutError, SlosError, grpc.aio.AioRpcError):
            pass  # the engine is gone or stuck: the lease of the blocks expires

    async def _release(self, engine: EngineRef, request_id: str) -> None:
        await self._link(engine.address).release(
            pb.ReleaseRequest(engine_id=engine.engine_id, request_ids=[request_id]),
            timeout=self._clean_up_limit_s,
        )

    async def _wind_up(
        self, engine: EngineRef, request_id: str, prefill: asyncio.Task[Prefilled | None]
    ) -> None:
        """Releases after the abort, since the prompt may have finished just before it."""
        prefill.cancel()
        await self._link(engine.address).abort(
            pb.AbortRequest(request_ids=[request_id]), timeout=self._clean_up_limit_s
        )
        await self._release(engine, request_id)


def _encoded(request: EngineCoreRequest) -> list[bytes]:
    try:
        return encode_request(request)
    except OverflowError as error:
        raise InvalidRequest(
            "A number in this request does not fit into 64 bits; send a smaller one.", param="body"
        ) from error


async def _own_replies(engine: EngineRef, call: Replies) -> AsyncGenerator[Reply, None]:
    """Replies of an engine that sends outputs on the stream of each call."""
    try:
        async for reply in call:
            if outputs := decode_outputs(reply.outputs):
                yield reply_of(outputs, reply)
    except grpc.aio.AioRpcError as error:
        raise in_our_words(engine, error.code(), error.details()) from error
