import asyncio

from services.bench.answers import Answer
from services.bench.load import ClosedLoop
from shared.clock import VirtualClock

ANSWER_S = 0.25


def loop_on(clock: VirtualClock, running: list[int]) -> ClosedLoop:
    now_running = 0

    async def ask() -> Answer:
        nonlocal now_running
        now_running += 1
        running.append(now_running)
        await clock.sleep(ANSWER_S)
        now_running -= 1
        return Answer(first_s=ANSWER_S / 2, last_s=ANSWER_S, tokens=2)

    async def cpu_seconds() -> float:
        await asyncio.sleep(0)
        return clock.now() / 2

    return ClosedLoop(ask=ask, cpu_seconds=cpu_seconds, now=clock.now)


async def test_one_client_waits_for_its_answer_before_it_asks_again() -> None:
    running: list[int] = []

    load = await loop_on(VirtualClock(), running).run(1, 5.0)

    assert set(running) == {1}
    assert load.requests_per_s == 1 / ANSWER_S
    assert load.latency.p50_ms == 1000 * ANSWER_S


async def test_no_more_requests_are_under_way_than_were_asked_for() -> None:
    running: list[int] = []

    await loop_on(VirtualClock(), running).run(4, 5.0)

    assert max(running) == 4


async def test_the_cpu_time_is_of_the_counted_requests_alone() -> None:
    load = await loop_on(VirtualClock(), []).run(1, 5.0)

    assert load.cpu_ms_per_request == 1000 * ANSWER_S / 2
