"""Carries out what gateways ask of an engine core: starts, aborts and releases."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import msgspec
from vllm.v1.engine import EngineCoreRequest

from shared.clock import Clock
from shared.engine.replies import Delivery, OtherStart, Unreadable
from shared.engine.streams import Replies, RequestEnded, Streams
from shared.engine.terms import attach_terms, terms_from_wire
from shared.engine.vllm_core import EngineCore
from shared.engine.wire import decode_request
from shared.errors import SlosError
from shared.kv_transfer.settings import fault_in
from shared.rpc import slos_pb2 as pb

_LOG = logging.getLogger(__name__)
NO_ADAPTERS: Final = "This engine runs without LoRA: start it with --vllm '{enable_lora: true}'."


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """The orders of all streams. `release` frees KV blocks that are held for other engines."""

    core: EngineCore
    engine_id: str
    clock: Clock
    release: Callable[[Sequence[str]], None]
    streams: Streams[Delivery]

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[Replies[Delivery]]:
        """A new stream; requests that still run when it is left are aborted."""
        with self.streams.stream() as replies:
            try:
                yield replies
            finally:
                await self._abort(self.streams.of(replies))

    async def take(self, message: pb.EngineOrders, replies: Replies[Delivery]) -> None:
        """Carries out orders that came over the stream of `replies`."""
        for order in message.orders:
            kind = order.WhichOneof("kind")
            if kind == "start":
                await self.start(order.request_id, order.start, replies)
            elif kind == "abort" and self.streams.open.get(order.request_id) is replies:
                await self._abort([order.request_id])
            elif kind == "release" and order.release.engine_id == self.engine_id:
                self.release([order.request_id])

    async def start(
        self, request_id: str, wire: pb.GenerateRequest, replies: Replies[Delivery]
    ) -> None:
        """Starts a request, or ends it with the reason why it cannot run."""
        try:
            await self._start(self._read(wire), replies)
        except SlosError as error:
            replies.put(RequestEnded(request_id, error))
        except Exception:  # noqa: BLE001 - it must not end the stream's other requests
            _LOG.exception("Request %s could not be started.", request_id)
            replies.put(
                RequestEnded(request_id, SlosError("The engine could not start the request."))
            )

    async def _start(self, request: EngineCoreRequest, replies: Replies[Delivery]) -> None:
        if request.abort_immediately:
            # It has no outputs: it only makes the connector tell the prefill engine
            # to free its blocks.
            await self.core.add(request)
            replies.put(RequestEnded(request.request_id))
            return
        self.streams.add(request.request_id, replies)
        try:
            await self.core.add(request)
        except BaseException:
            self.streams.remove(request.request_id)
            raise

    def _read(self, wire: pb.GenerateRequest) -> EngineCoreRequest:
        """Raises OtherStart and Unreadable."""
        if wire.engine_id not in ("", self.engine_id):
            raise OtherStart("The engine that is meant has been started anew since.")
        try:
            request = decode_request(wire.request)
        except (msgspec.MsgspecError, IndexError) as error:
            raise Unreadable(
                f"This is no request of the vLLM that runs here ({error}); "
                "gateway and engine must run the same version."
            ) from error
        params = request.sampling_params
        fault = fault_in(((params.extra_args if params else None) or {}).get("kv_transfer_params"))
        if fault is not None:
            raise Unreadable(f"{fault}.")
        if request.lora_request is not None and not self.core.takes_adapters:
            raise Unreadable(NO_ADAPTERS)
        attach_terms(request, terms_from_wire(wire.terms, now_s=self.clock.now()))
        return request

    async def _abort(self, request_ids: list[str]) -> None:
        if not request_ids:
            return
        for request_id in request_ids:
            self.streams.remove(request_id)
        self.release(request_ids)
        await self.core.abort(request_ids)
