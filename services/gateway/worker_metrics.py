"""Metrics of several workers on one page, by prometheus_client's multiprocess mode.

Each worker keeps its values in files of one folder. The page of any worker adds up those of all:
counters and histograms of ended workers included, gauges of living ones alone.
"""

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from shared.clock import Clock
from shared.telemetry.task_count import TASKS

_UPDATE_EVERY_S: Final = 0.25
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class ProcessMetrics:
    """What the library's own collector tells of one process, in a form that adds up."""

    def __init__(self) -> None:
        registry = CollectorRegistry()  # of no page: pages of this mode are made from the files
        self._cpu = Counter(
            "process_cpu_seconds_total", "CPU time of all workers.", registry=registry
        )
        self._memory = Gauge(
            "process_resident_memory_bytes",
            "Resident memory of all workers; pages that they share count for each.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._tasks = Gauge(
            TASKS,
            "Tasks of the event loop that have not ended.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._counted_s = 0.0

    def update(self) -> None:
        """Call it within the event loop."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        used_s = used.ru_utime + used.ru_stime
        self._cpu.inc(used_s - self._counted_s)
        self._counted_s = used_s
        self._memory.set(_resident_bytes())
        self._tasks.set(len(asyncio.all_tasks()))


@asynccontextmanager
async def process_metrics(clock: Clock) -> AsyncIterator[None]:
    """Keeps this worker's process metrics up to date in the background."""
    task = asyncio.create_task(_keep_up_to_date(ProcessMetrics(), clock))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _keep_up_to_date(metrics: ProcessMetrics, clock: Clock) -> None:
    while True:
        metrics.update()
        await clock.sleep(_UPDATE_EVERY_S)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
