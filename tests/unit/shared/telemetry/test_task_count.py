"""A page tells how many tasks its event loop has, also to a thread."""

import asyncio

from prometheus_client import CollectorRegistry

from shared.telemetry.task_count import TASKS, count_tasks


async def test_a_page_counts_the_tasks_that_have_not_ended() -> None:
    registry = CollectorRegistry()
    count_tasks(registry)
    before = registry.get_sample_value(TASKS)
    assert before is not None
    waiting = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(5)]

    told = await asyncio.to_thread(registry.get_sample_value, TASKS)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert told == before + 5
    assert registry.get_sample_value(TASKS) == before
