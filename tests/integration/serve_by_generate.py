"""Serves a stream of orders by calls of `Generate`, for engines that tests make of a few lines."""

import asyncio
from contextlib import aclosing
from typing import Any

import grpc

from shared.engine.wire import decode_outputs
from shared.rpc import slos_pb2 as pb
from shared.rpc.multiplex import Outbox, converse
from shared.rpc.slos_pb2_grpc import EngineServicer


class Aborted(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


class Context:
    """The context of one request on the stream."""

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(code, details)


class ServesByGenerate(EngineServicer):
    """Keeps what is released in `released`."""

    released: list[str]

    async def Serve(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override] # noqa: N802
        outbox: Outbox[pb.EngineReplies] = Outbox()
        running: dict[str, asyncio.Task[None]] = {}

        async def take(message: pb.EngineOrders) -> None:
            for order in message.orders:
                kind, request_id = order.WhichOneof("kind"), order.request_id
                if kind == "start":
                    running[request_id] = asyncio.create_task(self._generate(order, outbox))
                elif kind == "abort" and request_id in running:
                    running[request_id].cancel()
                elif kind == "release":
                    self.released.append(request_id)

        try:
            await converse(outbox, iter, context.write, request_iterator, take)
        finally:
            for task in running.values():
                task.cancel()

    async def _generate(self, order: pb.EngineOrder, outbox: Outbox[pb.EngineReplies]) -> None:
        last = None
        try:
            replies: Any = self.Generate(order.start, Context())  # type: ignore[arg-type]
            async with aclosing(replies):
                async for reply in replies:
                    last = decode_outputs(reply.outputs)[-1]
                    outbox.put(pb.EngineReplies(replies=[reply]))
        except Aborted as error:
            _end(order, outbox, error.code, error.details)
        else:
            if last is None or last.finish_reason is None:
                _end(order, outbox, grpc.StatusCode.OK, "")


def _end(
    order: pb.EngineOrder, outbox: Outbox[pb.EngineReplies], code: grpc.StatusCode, details: str
) -> None:
    end = pb.RequestEnd(request_id=order.request_id, code=code.value[0], details=details)
    outbox.put(pb.EngineReplies(ends=[end]))
