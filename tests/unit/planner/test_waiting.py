import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.planner.admission.decider import Decider
from services.planner.admission.pending import Deferral, PendingRequest
from services.planner.admission.placement import Decision
from services.planner.admission.waiting_queue import WaitingLimits, WaitingQueue
from services.planner.server.waiting import WaitingCalls
from shared.requests import Admission, Placement, Reason
from tests.unit.planner.builders import make_cluster, make_query

NUMBERS = WaitingLimits(hold_s=0.5, pause_s=0.005, recheck_s=0.05)


def decision(admission: Admission, **rest: Any) -> Decision:
    return Decision(
        placement=Placement(decision_id="", admission=admission, reason=Reason.NONE, **rest)
    )


@dataclass
class HandClock:
    """Moves only when it is moved."""

    at_s: float = 100.0
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    sleeps: int = 0

    def now(self) -> float:
        return self.at_s

    async def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        until_s = self.at_s + seconds
        while self.at_s < until_s - 1e-9:
            await self.moved.wait()

    async def move(self, seconds: float) -> None:
        self.at_s += seconds
        self.moved.set()
        self.moved.clear()
        await settle()


@dataclass
class FakeDecider:
    """Admits `room` requests, in the order given, and holds the rest."""

    room: int = 0
    held_as: Decision | Deferral | None = None
    rounds: list[list[PendingRequest]] = field(default_factory=list)
    withdrawn: list[Placement] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)  # of those that were answered
    fails: bool = False
    _works: Callable[[], None] = lambda: None

    def takes(self, seconds: float, clock: HandClock) -> None:
        """From now on a round takes so long."""

        def work() -> None:
            clock.at_s += seconds

        self._works = work

    def decide_round(
        self,
        asked: Sequence[PendingRequest],
        now: float,  # noqa: ARG002
    ) -> list[Decision | Deferral | None]:
        self.rounds.append(list(asked))
        self._works()
        if self.fails:
            raise ZeroDivisionError
        taken = min(self.room, len(asked))
        self.room -= taken
        yes = [decision(Admission.ADMITTED)] * taken
        return [*yes, *[self.held_as] * (len(asked) - taken)]

    def commit(self, asked: PendingRequest, decision: Decision, now: float) -> Placement:  # noqa: ARG002
        self.waited_s.append(asked.query.waited_s)
        return decision.placement

    def defer(self, asked: PendingRequest, so_far: Decision | None, now: float) -> Placement:  # noqa: ARG002
        return (so_far or decision(Admission.DEFERRED)).placement

    def withdraw(self, placement: Placement, now: float) -> None:  # noqa: ARG002
        self.withdrawn.append(placement)

    @property
    def asked(self) -> list[list[str]]:
        return [[one.query.request_id for one in each] for each in self.rounds]


@dataclass
class Desk:
    decider: FakeDecider
    clock: HandClock
    calls: WaitingCalls

    def ask(
        self, name: str, *, waited_s: float = 0.0, limit_s: float = 2.0
    ) -> "asyncio.Task[Placement]":
        return asyncio.create_task(self.calls.place(make_query(name, waited_s=waited_s), limit_s))

    def free(self) -> None:
        self.calls.queue.freed(self.clock.now())
        self.calls.ring()


@asynccontextmanager
async def opened(decider: FakeDecider) -> AsyncIterator[Desk]:
    clock = HandClock()
    calls = WaitingCalls(queue=WaitingQueue(decider=decider, numbers=NUMBERS), clock=clock)
    running = asyncio.create_task(calls.run())
    try:
        yield Desk(decider, clock, calls)
    finally:
        calls.close()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def settle() -> None:
    """Lets all that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_calls_of_the_same_turn_are_decided_in_one_round() -> None:
    async with opened(FakeDecider(room=3)) as desk:
        placed = await asyncio.gather(desk.ask("a"), desk.ask("b"), desk.ask("c"))

    assert desk.decider.asked == [["a", "b", "c"]]
    assert all(one.runs for one in placed)


async def test_only_calls_that_are_not_decided_at_once_are_looked_at_again() -> None:
    async with opened(FakeDecider(room=1)) as desk:
        await desk.ask("a")
        await settle()
        assert desk.clock.sleeps == 0

        held = desk.ask("b")
        await settle()
        assert desk.clock.sleeps == 1
        held.cancel()


async def test_a_held_call_is_decided_when_room_is_freed() -> None:
    async with opened(FakeDecider()) as desk:
        call = desk.ask("a", waited_s=1.0)
        await settle()
        assert not call.done()

        await desk.clock.move(0.02)
        desk.decider.room = 1
        desk.free()
        placed = await call

    assert placed.runs
    assert desk.decider.waited_s == pytest.approx([1.02])


async def test_a_held_call_that_can_wait_no_longer_makes_a_round_of_its_own() -> None:
    held = Deferral(takes_s=0.1, due_s=100.13, latest_s=100.02, looked_s=100.0)
    async with opened(FakeDecider(held_as=held)) as desk:
        call = desk.ask("a")
        await settle()
        await desk.clock.move(0.015)
        assert len(desk.decider.rounds) == 1
        await desk.clock.move(0.005)
        assert len(desk.decider.rounds) == 2
        call.cancel()


async def test_freed_room_makes_a_round_at_most_every_pause() -> None:
    async with opened(FakeDecider()) as desk:
        call = desk.ask("a")
        await settle()
        for _ in range(20):
            desk.free()
            await settle()
        assert len(desk.decider.rounds) == 1

        await desk.clock.move(NUMBERS.pause_s)
        assert len(desk.decider.rounds) == 2
        call.cancel()


async def test_rounds_that_freed_room_asks_for_take_half_of_the_time_at_most() -> None:
    async with opened(FakeDecider()) as desk:
        round_s, began_s = 20 * NUMBERS.pause_s, desk.clock.now()
        desk.decider.takes(round_s, desk.clock)
        call = desk.ask("a", limit_s=math.inf)
        for _ in range(80):
            await settle()
            desk.free()
            await desk.clock.move(NUMBERS.pause_s)
        rounds, elapsed_s = len(desk.decider.rounds), desk.clock.now() - began_s
        assert rounds >= 3
        assert rounds * round_s <= elapsed_s / 2 + round_s
        call.cancel()


async def test_a_slow_round_holds_up_no_call_beyond_its_limit() -> None:
    async with opened(FakeDecider()) as desk:
        desk.decider.takes(20.0, desk.clock)
        first = desk.ask("a")
        await settle()
        desk.decider.takes(0.0, desk.clock)
        second = desk.ask("b")
        await settle()
        await desk.clock.move(NUMBERS.pause_s)
        assert first.done()
        await desk.clock.move(NUMBERS.hold_s)
        assert second.done()


async def test_without_waiting_calls_freed_room_makes_no_round() -> None:
    async with opened(FakeDecider()) as desk:
        desk.free()
        await desk.clock.move(1.0)

    assert desk.decider.rounds == []


async def test_a_held_call_is_looked_at_again_though_nothing_is_freed() -> None:
    async with opened(FakeDecider()) as desk:
        call = desk.ask("a")
        await settle()
        desk.decider.room = 1
        for _ in range(11):
            await desk.clock.move(NUMBERS.pause_s)

        assert (await call).runs
        assert len(desk.decider.rounds) == 2


async def test_patience_that_ends_sooner_is_looked_at_sooner() -> None:
    held = decision(Admission.DEFERRED, hold_s=0.01)
    async with opened(FakeDecider(held_as=held)) as desk:
        call = desk.ask("a")
        await settle()
        desk.decider.room = 1
        await desk.clock.move(0.005)
        assert not call.done()
        await desk.clock.move(0.006)

        assert (await call).runs


@pytest.mark.parametrize(("limit_s", "ends_after_s"), [(2.0, 0.5), (0.2, 0.2)])
async def test_an_undecided_call_ends_within_its_limit_with_the_reason_so_far(
    limit_s: float, ends_after_s: float
) -> None:
    held = decision(Admission.DEFERRED, hold_s=9.0)
    async with opened(FakeDecider(held_as=held)) as desk:
        call = desk.ask("a", limit_s=limit_s)
        await settle()
        await desk.clock.move(ends_after_s - 0.01)
        assert not call.done()
        await desk.clock.move(0.011)

        assert await call == held.placement


async def test_a_deferred_request_that_asks_again_keeps_its_place() -> None:
    async with opened(FakeDecider()) as desk:
        first = desk.ask("first", waited_s=3.0)
        await settle()
        await desk.clock.move(0.3)
        second = desk.ask("second")
        await settle()
        await desk.clock.move(0.21)
        assert first.done()

        again = desk.ask("first", waited_s=3.51)
        await settle()
        desk.decider.room = 1
        await desk.clock.move(0.05)

        assert (again.done(), second.done()) == (True, False)
        assert desk.decider.asked[-2:] == [["first", "second"], ["second"]]
        second.cancel()


async def test_a_client_that_goes_away_leaves_the_room() -> None:
    async with opened(FakeDecider()) as desk:
        call = desk.ask("a")
        await settle()
        call.cancel()
        await settle()

        assert len(desk.calls.queue) == 0
        desk.decider.room = 1
        await desk.clock.move(0.1)
        assert len(desk.decider.rounds) == 1
        assert desk.decider.withdrawn == []


async def test_a_client_that_goes_away_with_its_answer_on_the_way_has_it_withdrawn() -> None:
    async with opened(FakeDecider(room=1)) as desk:
        call = desk.ask("a")
        while not desk.decider.rounds:  # noqa: ASYNC110 - the loop is the clock here
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])

    assert call.cancelled()
    assert len(desk.decider.withdrawn) == 1


async def test_when_only_some_are_decided_the_rest_is_asked_again_at_once() -> None:
    async with opened(FakeDecider(room=1)) as desk:
        calls = [desk.ask(name) for name in "abc"]
        await settle()

        assert desk.decider.asked == [["a", "b", "c"], ["b", "c"]]
        for call in calls:
            call.cancel()


async def test_a_round_that_fails_fails_its_calls_and_no_later_ones() -> None:
    async with opened(FakeDecider(room=1, fails=True)) as desk:
        with pytest.raises(ZeroDivisionError):
            await desk.ask("a")
        desk.decider.fails = False

        assert (await desk.ask("b")).runs


async def test_closing_defers_all_calls() -> None:
    async with opened(FakeDecider()) as desk:
        calls = [desk.ask(name) for name in "ab"]
        await settle()
        desk.calls.close()

        answers = await asyncio.gather(*calls)

    assert {one.admission for one in answers} == {Admission.DEFERRED}


async def test_a_request_deferred_again_and_again_has_one_record() -> None:
    state = make_cluster(grace_s=1e6)  # without an engine all requests are deferred
    clock = HandClock()
    decider = Decider(state=state, epoch_s=clock.now)
    calls = WaitingCalls(queue=WaitingQueue(decider=decider, numbers=NUMBERS), clock=clock)
    running = asyncio.create_task(calls.run())
    ids = set()
    for _ in range(3):
        call = asyncio.create_task(calls.place(make_query("r1"), 2.0))
        await settle()
        await clock.move(0.6)
        ids.add((await call).decision_id)
    running.cancel()

    assert len(ids) == 1
    assert len(decider.ledger.all_that_is_left()) == 1
