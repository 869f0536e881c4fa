import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import pytest

from services.planner.server.gateway_calls import GatewayCalls, Unreadable, read_query
from shared.rpc import codec
from shared.rpc import slos_pb2 as pb
from tests.unit.planner.builders import make_query

INVALID, CANCELLED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.CANCELLED


@dataclass
class Planner:
    """Places when told to; refuses a query without an id."""

    limits_s: list[float] = field(default_factory=list)
    settled: list[pb.SettleRequest] = field(default_factory=list)
    left: int = 0
    may_place: asyncio.Event = field(default_factory=asyncio.Event)

    async def place(self, query: pb.PlacementQuery, limit_s: float) -> pb.Placement:
        self.limits_s.append(limit_s)
        if not query.request_id:
            raise Unreadable("no id")
        try:
            await self.may_place.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        return pb.Placement(decision_id=f"d-{query.request_id}")


class Gateway:
    """The other end of the stream."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[list[pb.PlannerCall] | None] = asyncio.Queue()
        self.replies: list[pb.PlannerReply] = []
        self.planner = Planner()
        self.served = GatewayCalls(place=self.planner.place, settle=self.planner.settled.append)
        self.serving = asyncio.create_task(self.served.serve(self, self.write))

    async def __aiter__(self) -> AsyncIterator[pb.PlannerCalls]:
        while (calls := await self.calls.get()) is not None:
            yield pb.PlannerCalls(calls=calls)

    async def write(self, message: pb.PlannerReplies) -> None:
        self.replies += message.replies

    async def act(self, *calls: pb.PlannerCall) -> None:
        self.calls.put_nowait([*calls])
        for _ in range(20):
            await asyncio.sleep(0)

    async def leave(self) -> None:
        self.calls.put_nowait(None)
        await asyncio.wait_for(self.serving, 1)

    @property
    def codes(self) -> dict[int, int]:
        return {one.id: one.failure.code for one in self.replies if one.HasField("failure")}


def place(call_id: int, request_id: str = "r", **changed: float) -> pb.PlannerCall:
    query = pb.PlacementQuery(request_id=request_id)
    return pb.PlannerCall(id=call_id, place=pb.PlaceCall(query=query, **changed))


def leave(call_id: int) -> pb.PlannerCall:
    return pb.PlannerCall(id=call_id, leave=pb.LeaveCall())


async def test_calls_of_one_message_are_answered_each_by_its_id() -> None:
    gateway = Gateway()
    gateway.planner.may_place.set()

    await gateway.act(
        place(1, "a"), pb.PlannerCall(id=2, settle=pb.SettleRequest()), place(3, "b", limit_s=2.0)
    )

    ids = {one.id: one.placement.decision_id for one in gateway.replies}
    assert ids == {1: "d-a", 2: "", 3: "d-b"}
    assert len(gateway.planner.settled) == 1
    assert gateway.planner.limits_s == [math.inf, 2.0]
    await gateway.leave()


@pytest.mark.parametrize("together", [True, False])
async def test_a_caller_that_leaves_is_forgotten_and_told_so(together: bool) -> None:
    gateway = Gateway()

    if together:
        await gateway.act(place(1), leave(1))
    else:
        await gateway.act(place(1))
        await gateway.act(leave(1))

    assert gateway.codes == {1: CANCELLED.value[0]}
    assert gateway.planner.left == (0 if together else 1)
    await gateway.leave()


async def test_a_query_that_cannot_be_read_fails_alone() -> None:
    gateway = Gateway()
    gateway.planner.may_place.set()

    await gateway.act(place(1, ""), place(2))

    assert gateway.codes == {1: INVALID.value[0]}
    assert [one.placement.decision_id for one in gateway.replies if one.id == 2] == ["d-r"]
    await gateway.leave()


async def test_requests_that_wait_are_forgotten_when_their_gateway_goes() -> None:
    gateway = Gateway()
    await gateway.act(place(1), place(2))

    await gateway.leave()
    await asyncio.sleep(0)

    assert gateway.planner.left == 2


async def test_a_planner_that_stops_answers_what_waits_and_ends_the_stream() -> None:
    gateway = Gateway()
    await gateway.act(place(1))

    gateway.served.close()
    gateway.planner.may_place.set()
    await asyncio.wait_for(gateway.serving, 1)

    assert [one.placement.decision_id for one in gateway.replies] == ["d-r"]


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_a_weight_that_is_no_number_above_0_is_refused(weight: float) -> None:
    wire = codec.query_to_wire(make_query())
    wire.weight = weight

    with pytest.raises(Unreadable, match="weight"):
        read_query(wire)
