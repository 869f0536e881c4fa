"""Receives the outputs of all this gateway's requests on one engine over one gRPC stream.

A message costs far more than the outputs in it, so all requests share each one.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
from vllm.v1.engine import EngineCoreOutput

from services.gateway.engine_calls import Reply
from shared.engine.streams import Stream, Streams
from shared.engine.wire import decode_outputs
from shared.errors import (
    EngineDraining,
    EngineLost,
    EngineStalled,
    EngineUnreachable,
    SlosError,
)
from shared.requests import EngineRef
from shared.rpc import slos_pb2 as pb

_HELLO_LIMIT_S = 2.0
_LAST_WORD_S = 5.0  # for outputs still on their way when their call has ended

Replies: TypeAlias = "grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateReply]"
Shared: TypeAlias = "grpc.aio.UnaryStreamCall[pb.OutputsRequest, pb.GenerateReply]"


_LOST: dict[grpc.StatusCode, type[EngineLost]] = {
    grpc.StatusCode.ABORTED: EngineStalled,
    grpc.StatusCode.NOT_FOUND: EngineUnreachable,  # another engine serves at its address
}


@dataclass(slots=True)
class SharedOutputs:
    """The stream of one engine, opened when first needed and again after it broke."""

    open_stream: Callable[[pb.OutputsRequest], Shared]
    _streams: Streams[Reply] = field(default_factory=Streams)
    _reading: "asyncio.Task[None] | None" = None
    _known: "asyncio.Future[str] | None" = None
    _never: bool = False

    async def reader(self) -> str:
        """The stream's name, once the engine knows it; empty if the engine offers none in time."""
        if self._never:
            return ""
        if self._reading is None or self._known is None or self._reading.done():
            self._known = asyncio.get_running_loop().create_future()
            self._reading = asyncio.create_task(self._read(uuid.uuid4().hex, self._known))
        try:
            async with asyncio.timeout(_HELLO_LIMIT_S):
                return await asyncio.shield(self._known)
        except TimeoutError:
            return ""

    async def replies(
        self, engine: EngineRef, request_id: str, call: Replies
    ) -> AsyncGenerator[Reply, None]:
        """Yields the replies to a call that named the reader. Raises as `EngineLinks.generate`."""
        stream = self._streams.add(request_id)
        watch = _Watch(engine, call, stream)
        try:
            while True:
                for reply in await stream.take():
                    yield reply
                    if reply.outputs[-1].finish_reason is not None:
                        return
        finally:
            watch.end()
            self._streams.remove(request_id)

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self, name: str, known: "asyncio.Future[str]") -> None:
        call = self.open_stream(pb.OutputsRequest(reader=name))
        try:
            async for reply in call:
                if known.done():
                    self._hand_out(reply)
                else:
                    known.set_result(name)
        except grpc.aio.AioRpcError as error:
            self._never = error.code() is grpc.StatusCode.UNIMPLEMENTED
        finally:
            call.cancel()
            if not known.done():
                known.set_result("")
            self._streams.fail_all(EngineLost("Its stream of outputs broke."))

    def _hand_out(self, reply: pb.GenerateReply) -> None:
        by_request: dict[str, list[EngineCoreOutput]] = {}
        for output in decode_outputs(reply.outputs):
            by_request.setdefault(output.request_id, []).append(output)
        for request_id, outputs in by_request.items():
            self._streams.give(request_id, reply_of(outputs, reply))


def reply_of(outputs: list[EngineCoreOutput], reply: pb.GenerateReply) -> Reply:
    return Reply(
        outputs=outputs,
        core_time_s=reply.core_time_s,
        weight_version=reply.weight_version or None,
    )


def in_our_words(engine: EngineRef, code: grpc.StatusCode, details: str | None) -> SlosError:
    words = details or code.name.lower().replace("_", " ")
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        return EngineDraining(f"Engine {engine.name} takes nothing new: {words}")
    return _LOST.get(code, EngineLost)(words)


class _Watch:
    """Ends `stream` with an error when its call ends; its outputs come over the shared stream.

    Most calls end after their stream has; only for the others it takes a task.
    """

    def __init__(self, engine: EngineRef, call: Replies, stream: Stream[Reply]) -> None:
        self._over = False
        self._task: asyncio.Task[None] | None = None

        def ended(_: object) -> None:
            if not self._over:
                self._task = asyncio.create_task(_tell_of_end(engine, call, stream))

        call.add_done_callback(ended)

    def end(self) -> None:
        self._over = True
        if self._task is not None:
            self._task.cancel()


async def _tell_of_end(engine: EngineRef, call: Replies, stream: Stream[Reply]) -> None:
    code = await call.code()
    if code is grpc.StatusCode.OK:
        await asyncio.sleep(_LAST_WORD_S)
        stream.fail(EngineLost("It ended the stream without an end of the answer."))
    else:
        stream.fail(in_our_words(engine, code, await call.details()))
