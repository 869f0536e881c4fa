"""A gauge of a process's asyncio tasks."""

import asyncio
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

TASKS: Final = "slos_asyncio_tasks"


def count_tasks(registry: CollectorRegistry) -> None:
    """Counts the tasks of the running event loop. Pages may be rendered in another thread."""
    loop = asyncio.get_running_loop()
    gauge = Gauge(TASKS, "Tasks of the event loop that have not ended.", registry=registry)
    gauge.set_function(lambda: len(asyncio.all_tasks(loop)))
