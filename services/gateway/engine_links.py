"""The engines over gRPC: one channel per address, gRPC's errors as SlosErrors."""

import asyncio
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass

import grpc
from vllm.lora.request import LoRARequest
from vllm.v1.engine import EngineCoreRequest

from services.gateway.continuation import Prefilled
from services.gateway.engine_calls import Reply
from services.gateway.engine_stream import EngineStream, in_our_words
from shared.clock import Clock
from shared.engine.wire import encode_adapter, encode_request
from shared.errors import EngineUnreachable, InvalidRequest
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
    stream: EngineStream
    health: "grpc.aio.UnaryUnaryMultiCallable[pb.HealthRequest, pb.HealthReply]"
    load_adapter: "grpc.aio.UnaryUnaryMultiCallable[pb.LoadAdapterRequest, pb.LoadAdapterReply]"
    calls: int = 0
    used_at_s: float = 0.0

    async def close(self) -> None:
        await self.stream.close()
        await self.channel.close(None)


class EngineLinks:
    """Calls engines by address. `connect_limit_s` limits the wait for a connection."""

    def __init__(
        self,
        clock: Clock,
        identity: Identity | None = None,
        *,
        connect_limit_s: float = 2.0,
    ) -> None:
        self._clock = clock
        self._identity = identity
        self._connect_limit_s = connect_limit_s
        self._links: dict[str, _Link] = {}

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
            answer = link.stream.start(engine, request.request_id, message)
            try:
                while replies := await answer.take():
                    for reply in replies:
                        yield reply
            finally:
                link.stream.leave(request.request_id)
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
        """Frees KV blocks that `engine` holds and no engine will fetch.

        If that does not arrive, the lease of the blocks expires.
        """
        self._link(engine.address).stream.release(engine.engine_id, request_id)

    def wind_up(
        self, engine: EngineRef, request_id: str, prefill: asyncio.Task[Prefilled | None]
    ) -> None:
        """Aborts a prefill on `engine` and frees its blocks.

        Releases after the abort, since the prompt may have finished just before it.
        """
        prefill.cancel()
        self._link(engine.address).stream.leave(request_id)
        self.release(engine, request_id)

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
        """Ends every call."""
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
                stream=EngineStream(stub.Serve),
                health=stub.Health,
                load_adapter=stub.LoadAdapter,
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


def _encoded(request: EngineCoreRequest) -> list[bytes]:
    try:
        return encode_request(request)
    except OverflowError as error:
        raise InvalidRequest(
            "A number in this request does not fit into 64 bits; send a smaller one.", param="body"
        ) from error
