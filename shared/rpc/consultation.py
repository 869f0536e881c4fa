"""A gateway's calls to the planner, all over one stream."""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import grpc

from shared.errors import PlannerUnavailable
from shared.requests import Admission, Outcome, Placement, PlacementQuery, PrefixExport
from shared.rpc import codec
from shared.rpc import slos_pb2 as pb
from shared.rpc.multiplex import DuplexCall, Multiplexer, code_of

OpenStream: TypeAlias = Callable[[None], DuplexCall[pb.PlannerCalls, pb.PlannerReplies]]

_MOST_JOINED: Final = 64  # calls in a message


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    reply: asyncio.Future[pb.PlannerReply]
    request_id: str = ""  # of a request that is to be placed


class Consultation:
    """The stream to the planner at `address`, opened when first needed and again after it broke.

    Calls raise PlannerUnavailable if no answer comes within their limit.
    """

    def __init__(self, address: str, open_stream: OpenStream) -> None:
        self._address = address
        self._calls: dict[int, _Call] = {}
        self._ids = itertools.count(1)
        self._stream = Multiplexer(open_stream, _joined, self._take_in, self._lost)

    async def place(self, query: PlacementQuery, limit_s: float) -> Placement:
        """The planner's decision. If the caller leaves before it, the planner forgets it."""
        place = pb.PlaceCall(query=codec.query_to_wire(query), limit_s=limit_s)
        call = pb.PlannerCall(id=next(self._ids), place=place)
        try:
            reply = await self._ask(call, limit_s, query.request_id)
        except (asyncio.CancelledError, PlannerUnavailable):
            if call.id in self._calls:
                self._stream.send(pb.PlannerCall(id=call.id, leave=pb.LeaveCall()))
            raise
        return codec.placement_from_wire(reply.placement)

    async def settle(
        self, outcomes: Sequence[Outcome], exports: Sequence[PrefixExport], limit_s: float
    ) -> None:
        """Reports how placed requests ended and what became of exports of prefixes; returns when
        the planner has taken it in.
        """
        settle = pb.SettleRequest(
            outcomes=[codec.outcome_to_wire(each) for each in outcomes],
            exports=[codec.export_to_wire(each) for each in exports],
        )
        await self._ask(pb.PlannerCall(id=next(self._ids), settle=settle), limit_s)

    async def close(self) -> None:
        await self._stream.close()

    async def _ask(
        self, call: pb.PlannerCall, limit_s: float, request_id: str = ""
    ) -> pb.PlannerReply:
        reply: asyncio.Future[pb.PlannerReply] = asyncio.get_running_loop().create_future()
        self._calls[call.id] = _Call(reply, request_id)
        self._stream.send(call)
        try:
            async with asyncio.timeout(limit_s):
                return await reply
        except TimeoutError as error:
            words = f"no answer within {limit_s:g} s"
            raise unavailable(self._address, grpc.StatusCode.DEADLINE_EXCEEDED, words) from error

    def _take_in(self, message: pb.PlannerReplies) -> None:
        for reply in message.replies:
            call = self._calls.pop(reply.id, None)
            if call is None:
                continue
            if call.reply.done():
                self._return(call, reply)
            elif reply.WhichOneof("kind") == "failure":
                code = code_of(reply.failure.code)
                error = unavailable(self._address, code, reply.failure.details)
                call.reply.set_exception(error)
            else:
                call.reply.set_result(reply)

    def _return(self, call: _Call, reply: pb.PlannerReply) -> None:
        """Gives back a placement that came after its caller had left."""
        placement = reply.placement
        if not placement.decision_id or placement.admission == Admission.REFUSED.value:
            return
        outcome = pb.Outcome(
            decision_id=placement.decision_id, request_id=call.request_id, finished="abort"
        )
        settle = pb.SettleRequest(outcomes=[outcome])
        self._stream.send(pb.PlannerCall(id=next(self._ids), settle=settle))

    def _lost(self, code: grpc.StatusCode, words: str) -> None:
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.reply.done():
                call.reply.set_exception(unavailable(self._address, code, words))


def unavailable(address: str, code: grpc.StatusCode, details: str | None) -> PlannerUnavailable:
    what = f"{code.name.lower().replace('_', ' ')}: {details}"
    return PlannerUnavailable(f"The planner at {address} could not answer ({what}).")


def _joined(calls: list[pb.PlannerCall]) -> Iterator[pb.PlannerCalls]:
    for start in range(0, len(calls), _MOST_JOINED):
        yield pb.PlannerCalls(calls=calls[start : start + _MOST_JOINED])
