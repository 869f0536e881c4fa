"""All of this gateway's requests on one engine, over one gRPC stream."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import grpc
from vllm.v1.engine import EngineCoreOutput

from services.gateway.engine_calls import Reply
from shared.engine.wire import decode_outputs
from shared.errors import (
    EngineDraining,
    EngineLost,
    EngineStalled,
    EngineUnreachable,
    InvalidRequest,
    SlosError,
)
from shared.requests import EngineRef
from shared.rpc import slos_pb2 as pb
from shared.rpc.channels import MESSAGE_LIMIT_BYTES
from shared.rpc.multiplex import DuplexCall, Multiplexer, code_of

OpenStream: TypeAlias = Callable[[None], DuplexCall[pb.EngineOrders, pb.EngineReplies]]

_JOINED_BYTES: Final = 1 << 20  # orders are joined up to this size
_FRAME_BYTES: Final = 1 << 10  # at least what a message adds to an order
_LOST: Final[dict[grpc.StatusCode, type[EngineLost]]] = {
    grpc.StatusCode.ABORTED: EngineStalled,
    grpc.StatusCode.NOT_FOUND: EngineUnreachable,  # another engine serves at its address
    grpc.StatusCode.UNIMPLEMENTED: EngineUnreachable,  # it is of a version without `Serve`
}


@dataclass(slots=True, eq=False)
class PendingReplies:
    """The replies to one request that wait to be taken."""

    engine: EngineRef
    _waiting: list[Reply] = field(default_factory=list)
    _over: bool = False
    _error: SlosError | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def give(self, reply: Reply) -> None:
        self._waiting.append(reply)
        self._changed.set()

    def end(self, error: SlosError | None = None) -> None:
        """Nothing more comes; what was given before is still taken."""
        self._over, self._error = True, error
        self._changed.set()

    async def take(self) -> list[Reply]:
        """All that wait, at least one; none only after the end. Raises the error that ended it."""
        while not (self._waiting or self._over):
            self._changed.clear()
            await self._changed.wait()
        if not self._waiting and self._error is not None:
            raise self._error
        taken, self._waiting = self._waiting, []
        return taken


class EngineStream:
    """The stream of one engine, opened when first needed and again after it broke."""

    def __init__(self, open_stream: OpenStream) -> None:
        self._answers: dict[str, PendingReplies] = {}
        self._stream = Multiplexer(open_stream, _joined, self._take_in, self._lost)

    def start(
        self, engine: EngineRef, request_id: str, message: pb.GenerateRequest
    ) -> PendingReplies:
        """Sends a request; `leave` must follow. Raises InvalidRequest if it is too large."""
        if message.ByteSize() + _FRAME_BYTES > MESSAGE_LIMIT_BYTES:
            raise InvalidRequest(
                f"This request is larger than {MESSAGE_LIMIT_BYTES >> 20} MiB once it is rendered; "
                "send a smaller one.",
                param="body",
            )
        if request_id in self._answers:
            raise EngineLost(f"The request {request_id} is already running on {engine.name}.")
        answer = self._answers[request_id] = PendingReplies(engine)
        self._stream.send(pb.EngineOrder(request_id=request_id, start=message))
        return answer

    def leave(self, request_id: str) -> None:
        """Aborts a request that has not ended."""
        if self._answers.pop(request_id, None) is not None:
            self._stream.send(pb.EngineOrder(request_id=request_id, abort=pb.AbortOrder()))

    def release(self, engine_id: str, request_id: str) -> None:
        """Frees KV blocks that this start of the engine holds for another engine."""
        order = pb.ReleaseOrder(engine_id=engine_id)
        self._stream.send(pb.EngineOrder(request_id=request_id, release=order))

    async def close(self) -> None:
        await self._stream.close()

    def _take_in(self, message: pb.EngineReplies) -> None:
        for reply in message.replies:
            self._hand_out(reply)
        for end in message.ends:
            answer = self._answers.pop(end.request_id, None)
            if answer is not None:
                answer.end(_error(answer.engine, end) if end.code else None)

    def _hand_out(self, reply: pb.GenerateReply) -> None:
        by_request: dict[str, list[EngineCoreOutput]] = {}
        for output in decode_outputs(reply.outputs):
            by_request.setdefault(output.request_id, []).append(output)
        for request_id, outputs in by_request.items():
            answer = self._answers.get(request_id)
            if answer is None:
                continue  # it was aborted meanwhile
            answer.give(
                Reply(
                    outputs=outputs,
                    core_time_s=reply.core_time_s,
                    weight_version=reply.weight_version or None,
                )
            )
            if outputs[-1].finish_reason is not None:
                answer.end()
                del self._answers[request_id]

    def _lost(self, code: grpc.StatusCode, words: str) -> None:
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer.end(in_our_words(answer.engine, code, words))


def _error(engine: EngineRef, end: pb.RequestEnd) -> SlosError:
    return in_our_words(engine, code_of(end.code), end.details)


def in_our_words(engine: EngineRef, code: grpc.StatusCode, details: str | None) -> SlosError:
    words = details or code.name.lower().replace("_", " ")
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        return EngineDraining(f"Engine {engine.name} takes nothing new: {words}")
    return _LOST.get(code, EngineLost)(words)


def _joined(orders: list[pb.EngineOrder]) -> Iterator[pb.EngineOrders]:
    """Few messages, none larger than the limit of one."""
    together: list[pb.EngineOrder] = []
    size_bytes = 0
    for order in orders:
        more_bytes = order.ByteSize()
        if together and size_bytes + more_bytes > _JOINED_BYTES:
            yield pb.EngineOrders(orders=together)
            together, size_bytes = [], 0
        together.append(order)
        size_bytes += more_bytes
    yield pb.EngineOrders(orders=together)
