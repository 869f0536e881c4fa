import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, field

from services.gateway.engine_health import EngineHealth, HealthLimits
from services.gateway.moves import MoveBudget, MoveLimits
from shared.errors import EngineLost
from shared.ticks import TICK_S
from tests.unit.gateway.engine_fakes import D, E

LIMITS = HealthLimits(quiet_s=4 * TICK_S, first_back_off_s=1.0, most_back_off_s=4.0)


@dataclass
class Ticks:
    """A clock that moves when a test says so; who sleeps on it waits for that."""

    at_s: float = 0.0
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self) -> float:
        return self.at_s

    async def sleep(self, seconds: float) -> None:
        until_s = self.at_s + seconds
        while self.at_s < until_s:
            await self._moved.wait()

    async def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.at_s += TICK_S
            self._moved.set()
            self._moved.clear()
            for _ in range(20):
                await asyncio.sleep(0)


@dataclass
class Rig:
    answers: bool = True
    asked: int = 0
    clock: Ticks = field(default_factory=Ticks)
    health: EngineHealth = field(init=False)

    def __post_init__(self) -> None:
        self.health = EngineHealth(self._probe, self.clock, LIMITS)

    async def _probe(self, _: object) -> bool:
        self.asked += 1
        if not self.answers:
            raise EngineLost("no answer")
        return True

    async def tick(self, times: int = 1) -> None:
        running = asyncio.create_task(self.health.run())
        await asyncio.sleep(0)
        await self.clock.tick(times)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@dataclass(eq=False)
class Waiting:
    """In the place of a Patience, whose timer belongs to a task."""

    given_up: bool = False

    def heard(self) -> None: ...

    def give_up(self) -> None:
        self.given_up = True


async def test_an_engine_that_gives_something_is_never_asked() -> None:
    rig, waiting = Rig(answers=False), Waiting()
    with rig.health.waiting(D, waiting) as heard:  # type: ignore[arg-type]
        for _ in range(10):
            await rig.tick(2)
            heard()

    assert rig.asked == 0
    assert not waiting.given_up


async def test_an_engine_that_is_quiet_and_answers_is_waited_for() -> None:
    rig, waiting = Rig(), Waiting()
    with rig.health.waiting(D, waiting):  # type: ignore[arg-type]
        await rig.tick(12)

    assert rig.asked >= 2
    assert not waiting.given_up
    assert rig.health.avoided() == ()


async def test_all_who_wait_for_an_engine_that_does_not_answer_are_told_so_at_once() -> None:
    rig, waits, other = Rig(answers=False), [Waiting(), Waiting()], Waiting()
    with ExitStack() as stack:
        for one in waits:
            stack.enter_context(rig.health.waiting(D, one))  # type: ignore[arg-type]
        await rig.tick(5)
        stack.enter_context(rig.health.waiting(E, other))  # type: ignore[arg-type]
        await rig.tick(1)

    assert [one.given_up for one in waits] == [True, True]
    assert not other.given_up
    assert rig.health.avoided() == ("d",)


async def test_only_failures_in_a_row_leave_an_engine_out() -> None:
    rig = Rig()
    for _ in range(5):
        rig.health.failed(D, at_once=False)
        rig.health.failed(D, at_once=False)
        rig.health.served(D)
    before = rig.health.avoided()

    for _ in range(3):
        rig.health.failed(D, at_once=False)

    assert before == ()
    assert rig.health.avoided() == ("d",)


async def test_one_request_at_a_time_tries_an_engine_that_was_left_out_and_brings_it_back() -> None:
    rig = Rig()
    rig.health.failed(D, at_once=True)
    await rig.tick(3)
    during_back_off = rig.health.avoided()
    await rig.tick(3)

    trial, meanwhile = rig.health.avoided(), rig.health.avoided()
    rig.health.served(D)

    assert during_back_off == ("d",)
    assert (trial, meanwhile) == ((), ("d",))
    assert rig.health.avoided() == ()


async def test_an_engine_that_fails_its_trial_is_left_out_for_longer_each_time() -> None:
    rig, outs = Rig(), []
    rig.health.failed(D, at_once=True)
    for _ in range(4):
        ticks = 0
        while rig.health.avoided():
            await rig.tick()
            ticks += 1
        outs.append(ticks)
        rig.health.failed(D, at_once=False)

    assert outs == sorted(outs)
    assert outs[1] > outs[0]
    assert outs[-1] * TICK_S <= LIMITS.most_back_off_s + 1


async def test_requests_that_fail_together_are_one_failure() -> None:
    rig = Rig()
    for _ in range(20):
        rig.health.failed(D, at_once=True)

    await rig.tick(6)

    assert rig.health.avoided() == ()


async def test_an_engine_that_is_gone_is_forgotten() -> None:
    rig = Rig()
    rig.health.failed(D, at_once=True)

    rig.health.prune({"e"})

    assert rig.health.avoided() == ()


def test_moves_are_bounded_by_a_share_of_the_load_and_come_back_with_time() -> None:
    budget = MoveBudget(MoveLimits(share=0.1, floor=2, window_s=60))
    few = [budget.take(0.0) for _ in range(3)]
    for _ in range(100):
        budget.placed(1.0)

    many = sum(budget.take(1.0) for _ in range(100))

    assert few == [True, True, False]
    assert many == 8
    assert budget.take(600.0)
