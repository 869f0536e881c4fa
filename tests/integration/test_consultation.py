"""A gateway's calls over one stream, over real gRPC to a planner of a few lines."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from shared.errors import PlannerUnavailable
from shared.requests import Outcome
from shared.rpc import slos_pb2 as pb
from shared.rpc.channels import PlannerClient, bind, make_server
from shared.rpc.multiplex import Outbox, converse
from shared.rpc.slos_pb2_grpc import PlannerServicer, add_PlannerServicer_to_server
from tests.limits import ANSWER_LIMIT_S
from tests.unit.planner.builders import make_query


@dataclass
class Planner(PlannerServicer):
    """Keeps the calls and answers when told to."""

    calls: list[pb.PlannerCall] = field(default_factory=list)
    streams: list[Outbox[pb.PlannerReply]] = field(default_factory=list)

    async def Consult(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override] # noqa: N802
        outbox: Outbox[pb.PlannerReply] = Outbox()
        self.streams.append(outbox)

        async def take(message: pb.PlannerCalls) -> None:
            self.calls += message.calls

        def join(replies: list[pb.PlannerReply]) -> list[pb.PlannerReplies]:
            return [pb.PlannerReplies(replies=replies)]

        await converse(outbox, join, context.write, request_iterator, take)

    def kinds(self, kind: str) -> list[pb.PlannerCall]:
        return [call for call in self.calls if call.WhichOneof("kind") == kind]

    def answer(self, call: pb.PlannerCall) -> None:
        placement = pb.Placement(
            decision_id=f"d-{call.place.query.request_id}",
            admission="best_effort",
            reason="none",
            way="colocated",
        )
        self.streams[-1].put(pb.PlannerReply(id=call.id, placement=placement))


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Planner, PlannerClient]]:
    planner, server = Planner(), make_server()  # type: ignore[abstract] # it serves this alone
    add_PlannerServicer_to_server(planner, server)
    client = PlannerClient(f"127.0.0.1:{bind(server, '127.0.0.1', 0)}")
    await server.start()
    try:
        yield planner, client
    finally:
        await client.close()
        await server.stop(None)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(ANSWER_LIMIT_S):
        while not true():  # noqa: ASYNC110 - what is waited for is in the server's hands
            await asyncio.sleep(0.01)


async def test_each_caller_gets_its_own_answer_in_whatever_order_they_come() -> None:
    async with served() as (planner, client):
        placing = [
            asyncio.create_task(client.place(make_query(name), ANSWER_LIMIT_S))
            for name in ("a", "b", "c")
        ]
        await until(lambda: len(planner.calls) == 3)
        for call in reversed(planner.calls):
            planner.answer(call)
        placed = await asyncio.wait_for(asyncio.gather(*placing), ANSWER_LIMIT_S)

    assert [one.decision_id for one in placed] == ["d-a", "d-b", "d-c"]
    assert len(planner.streams) == 1


async def test_the_planner_hears_of_a_caller_that_waits_no_longer() -> None:
    async with served() as (planner, client):
        placing = asyncio.create_task(client.place(make_query("a"), ANSWER_LIMIT_S))
        await until(lambda: len(planner.calls) == 1)
        placing.cancel()
        await until(lambda: len(planner.calls) == 2)
        with pytest.raises(PlannerUnavailable, match=r"within 0\.05 s"):
            await client.place(make_query("b"), 0.05)
        await until(lambda: len(planner.calls) == 4)

    places, leaves = planner.kinds("place"), planner.kinds("leave")
    assert [one.id for one in leaves] == [one.id for one in places]


async def test_a_placement_that_comes_too_late_is_given_back() -> None:
    async with served() as (planner, client):
        with pytest.raises(PlannerUnavailable):
            await client.place(make_query("late"), 0.05)
        await until(lambda: len(planner.kinds("leave")) == 1)

        planner.answer(planner.kinds("place")[0])

        await until(lambda: len(planner.kinds("settle")) == 1)
    (outcome,) = planner.kinds("settle")[0].settle.outcomes
    assert outcome.decision_id == "d-late"
    assert outcome.request_id == "late"
    assert outcome.finished == "abort"


async def test_a_stream_that_breaks_fails_what_waits_and_the_next_call_opens_another() -> None:
    outcome = Outcome(decision_id="d", request_id="r", finished="stop")
    async with served() as (planner, client):
        settling = asyncio.create_task(client.settle([outcome]))
        await until(lambda: len(planner.calls) == 1)
        planner.streams[0].end()
        with pytest.raises(PlannerUnavailable):
            await asyncio.wait_for(settling, ANSWER_LIMIT_S)

        again = asyncio.create_task(client.settle([outcome]))
        await until(lambda: len(planner.calls) == 2)
        planner.streams[1].put(pb.PlannerReply(id=planner.calls[1].id, settled=pb.SettleReply()))
        await asyncio.wait_for(again, ANSWER_LIMIT_S)


async def test_the_planners_words_of_a_failed_call_reach_its_caller() -> None:
    code: int = grpc.StatusCode.INVALID_ARGUMENT.value[0]
    async with served() as (planner, client):
        placing = asyncio.create_task(client.place(make_query("a"), ANSWER_LIMIT_S))
        await until(lambda: len(planner.calls) == 1)
        failure = pb.CallFailure(code=code, details="weight is 0")
        planner.streams[0].put(pb.PlannerReply(id=planner.calls[0].id, failure=failure))

        with pytest.raises(PlannerUnavailable, match=r"invalid argument: weight is 0"):
            await asyncio.wait_for(placing, ANSWER_LIMIT_S)
