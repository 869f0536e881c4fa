import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

import pytest

from shared.clock import VirtualClock
from shared.engine.registration import BackOff, Registration
from shared.engines import EngineDescription, Policy
from shared.errors import PlannerUnavailable, RegistrationRefused
from shared.rpc.channels import Beat
from tests.unit.shared.engine.test_state import make_report, make_state


class FakePlanner:
    """Answers each attachment with the next of `lives`: policies, then the error that ends it."""

    address = "planner:1"

    def __init__(self, *lives: tuple[list[Policy], Exception]) -> None:
        self.lives = list(lives)
        self.attached = 0

    async def attach(
        self, description: EngineDescription, news: AsyncIterable[Any]
    ) -> AsyncGenerator[Policy, None]:
        del description, news
        policies, error = self.lives[min(self.attached, len(self.lives) - 1)]
        self.attached += 1
        for policy in policies:
            yield policy
        raise error


def make(planner: FakePlanner, taken: list[Policy]) -> Registration:
    async def take(policy: Policy) -> None:
        taken.append(policy)

    return Registration(
        client=planner,  # type: ignore[arg-type] # six lines stand for the client
        state=make_state(),
        clock=VirtualClock(),
        on_policy=take,
        report_every_s=0.02,
    )


async def run_until(registration: Registration, done: Any) -> None:
    task = asyncio.create_task(registration.keep())
    async with asyncio.timeout(2):
        while not done() and not task.done():  # noqa: ASYNC110 - any state, no event
            await asyncio.sleep(0)
    if task.done():
        await task
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_planner_that_is_away_is_retried_for_ever() -> None:
    planner = FakePlanner(([], PlannerUnavailable("away")))
    registration = make(planner, [])

    await run_until(registration, lambda: planner.attached >= 50)

    assert planner.attached >= 50


async def test_policies_of_a_planner_that_came_back_are_taken() -> None:
    gone = PlannerUnavailable("gone")
    planner = FakePlanner(([Policy(version=1)], gone), ([], gone), ([Policy(version=2)], gone))
    taken: list[Policy] = []

    await run_until(make(planner, taken), lambda: len(taken) >= 2)

    assert [policy.version for policy in taken[:2]] == [1, 2]


async def test_a_refusal_at_the_start_ends_the_engine() -> None:
    planner = FakePlanner(([], RegistrationRefused("another model")))

    with pytest.raises(RegistrationRefused, match="another model"):
        await run_until(make(planner, []), lambda: False)


async def test_a_refusal_later_lets_the_engine_go_on() -> None:
    gone, refused = PlannerUnavailable("gone"), RegistrationRefused("another model")
    planner = FakePlanner(([Policy()], gone), ([], refused))

    await run_until(make(planner, []), lambda: planner.attached >= 4)

    assert planner.attached >= 4


async def test_a_stream_that_has_ended_takes_no_reports_from_the_next_one() -> None:
    registration = make(FakePlanner(([], PlannerUnavailable("gone"))), [])
    before = registration._news()
    assert isinstance(await anext(before), Beat)
    reading_on = asyncio.ensure_future(anext(before, None))
    await asyncio.sleep(0)

    registration.state.take(make_report(step=7))
    with pytest.raises(PlannerUnavailable):
        await registration._attach()

    assert await asyncio.wait_for(reading_on, 1) is None
    (told,) = registration.state.take_unsent()
    assert told.step == 7


async def test_a_lost_planner_leaves_the_engine_unattached() -> None:
    planner = FakePlanner(([Policy()], PlannerUnavailable("gone")))
    registration = make(planner, [])

    await run_until(registration, lambda: planner.attached >= 1 and not registration.state.attached)

    assert not registration.state.attached


async def test_reports_and_draining_go_up_once() -> None:
    registration = make(FakePlanner(([], PlannerUnavailable("away"))), [])
    registration.state.take(make_report(step=5))
    registration.draining = True
    news = registration._news()

    first, second = await anext(news), await anext(news)

    assert getattr(first, "draining", False) is True
    assert isinstance(second, list)
    assert second[0].step == 5


async def test_an_engine_with_nothing_to_tell_says_that_it_runs_and_sleeps_until_it_has() -> None:
    registration = make(FakePlanner(([], PlannerUnavailable("away"))), [])
    registration.overdue_s = lambda: 2.5
    news = registration._news()
    assert await anext(news) == Beat(overdue_s=2.5)
    waiting = asyncio.ensure_future(anext(news))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()

    registration.state.take(make_report(step=1))
    first = await asyncio.wait_for(waiting, 1)
    assert isinstance(first, list)
    assert [one.step for one in first] == [1]

    waiting = asyncio.ensure_future(anext(news))
    await asyncio.sleep(0)
    registration.set_draining(True)
    assert getattr(await asyncio.wait_for(waiting, 1), "draining", False) is True

    waiting = asyncio.ensure_future(anext(news))
    await asyncio.sleep(0)
    registration.set_draining(False)
    assert getattr(await asyncio.wait_for(waiting, 1), "draining", True) is False


def test_back_off_doubles_up_to_its_limit_and_starts_again() -> None:
    back_off = BackOff(first_s=1.0, most_s=5.0)

    waits = [back_off.next_s() for _ in range(5)]
    back_off.reset()

    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert back_off.next_s() == 1.0
