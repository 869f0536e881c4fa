"""What runs beside the rounds holds nothing up and hides nothing."""

import asyncio
import threading

import pytest

from services.planner.follow_demand import beside


async def test_what_a_thread_returns_or_raises_is_what_the_caller_gets() -> None:
    def fails() -> int:
        raise ValueError("no")

    assert await beside(lambda: 7) == 7
    with pytest.raises(ValueError, match="no"):
        await beside(fails)


async def test_the_thread_is_none_that_a_process_waits_for_at_its_end() -> None:
    thread = await beside(threading.current_thread)

    assert thread.daemon
    assert thread is not threading.current_thread()


async def test_a_caller_that_went_away_does_no_harm() -> None:
    may_end = threading.Event()
    waiting = asyncio.create_task(beside(lambda: may_end.wait(10)))
    await asyncio.sleep(0)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    threads = [one for one in threading.enumerate() if one.name == "desired-engines"]
    may_end.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
