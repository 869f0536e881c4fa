import asyncio

import pytest

from shared.clock import within_ticks
from shared.ticks import TICK_S


async def test_work_that_ends_in_time_gives_its_result() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await within_ticks(work(), 10 * TICK_S) == 7


async def test_work_that_does_not_end_is_cancelled_after_its_ticks() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        await within_ticks(work(), TICK_S)

    await asyncio.sleep(0)
    assert ended.is_set()


async def test_an_error_of_the_work_is_its_own() -> None:
    async def work() -> None:
        raise LookupError("fault")

    with pytest.raises(LookupError, match="fault"):
        await within_ticks(work(), 10 * TICK_S)
