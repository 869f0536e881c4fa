"""The calls that come over one gateway's stream."""

import asyncio
import math
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import grpc

from shared.errors import SlosError
from shared.requests import PlacementQuery
from shared.rpc import codec
from shared.rpc import slos_pb2 as pb
from shared.rpc.multiplex import Outbox, converse


class Unreadable(SlosError):
    """A query has a value that is not allowed."""


@dataclass(slots=True, eq=False)
class GatewayCalls:
    """Answers each call of one stream once, a call whose caller has left included.

    `place` gets a query and the seconds for which its caller waits.
    """

    place: Callable[[pb.PlacementQuery, float], Awaitable[pb.Placement]]
    settle: Callable[[pb.SettleRequest], None]
    _replies: Outbox[pb.PlannerReply] = field(default_factory=Outbox)
    _placing: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _closing: bool = False

    async def serve(
        self,
        calls: AsyncIterable[pb.PlannerCalls],
        write: Callable[[pb.PlannerReplies], Awaitable[None]],
    ) -> None:
        """Serves until the gateway ends the stream, or after `close` until all are answered."""
        try:
            await converse(self._replies, _joined, write, calls, self._take_in)
        finally:
            self._replies.end()
            for task in self._placing.values():
                task.cancel()

    def close(self) -> None:
        """Ends the stream once every call is answered."""
        self._closing = True
        self._end_if_done()

    async def _take_in(self, message: pb.PlannerCalls) -> None:
        for call in message.calls:
            kind = call.WhichOneof("kind")
            if kind == "place":
                self._start(call)
            elif kind == "settle":
                self.settle(call.settle)
                self._replies.put(pb.PlannerReply(id=call.id, settled=pb.SettleReply()))
            elif kind == "leave" and call.id in self._placing:
                self._placing[call.id].cancel()

    def _start(self, call: pb.PlannerCall) -> None:
        task = asyncio.create_task(self._place(call.id, call.place))
        self._placing[call.id] = task
        # A task that is cancelled before its first step runs no code of its own.
        task.add_done_callback(partial(self._ended, call.id))

    async def _place(self, call_id: int, call: pb.PlaceCall) -> None:
        limit_s = call.limit_s if call.HasField("limit_s") else math.inf
        try:
            placement = await self.place(call.query, limit_s)
            self._replies.put(pb.PlannerReply(id=call_id, placement=placement))
        except Unreadable as error:
            self._fail(call_id, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Exception as error:  # noqa: BLE001 - else the caller would wait for nothing
            self._fail(call_id, grpc.StatusCode.INTERNAL, str(error))

    def _ended(self, call_id: int, task: asyncio.Task[None]) -> None:
        del self._placing[call_id]
        if task.cancelled():
            self._fail(call_id, grpc.StatusCode.CANCELLED, "its caller has left")
        self._end_if_done()

    def _fail(self, call_id: int, code: grpc.StatusCode, words: str) -> None:
        failure = pb.CallFailure(code=code.value[0], details=words)
        self._replies.put(pb.PlannerReply(id=call_id, failure=failure))

    def _end_if_done(self) -> None:
        if self._closing and not self._placing:
            self._replies.end()


def read_query(wire: pb.PlacementQuery) -> PlacementQuery:
    """Raises Unreadable."""
    try:
        query = codec.query_from_wire(wire)
    except (ValueError, KeyError) as error:
        raise Unreadable(f"unreadable query: {error}") from error
    if not 0 < query.weight < math.inf:
        raise Unreadable(f"unreadable query: weight is {query.weight}, allowed is a number above 0")
    return query


def _joined(replies: list[pb.PlannerReply]) -> Iterator[pb.PlannerReplies]:
    yield pb.PlannerReplies(replies=replies)
