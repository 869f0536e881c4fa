"""The only module that reads time; code that decides takes `now` as an argument."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from shared.ticks import TICK_S

Result = TypeVar("Result")


class Clock(Protocol):
    """A monotonic clock in seconds and a way to wait on it."""

    def now(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class MonotonicClock:
    """The machine's monotonic clock, with one zero for all processes of the machine."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class CpuClock:
    """CPU seconds of the calling thread: what it did, however busy the machine is."""

    def now(self) -> float:
        return time.thread_time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class VirtualClock:
    """A clock that moves only by `sleep` or when it is set."""

    at_s: float = 0.0

    def now(self) -> float:
        return self.at_s

    async def sleep(self, seconds: float) -> None:
        self.at_s += max(0.0, seconds)
        await asyncio.sleep(0)


def wall_time_s() -> float:
    """Seconds since the epoch, for what people read (logs, records); never for arithmetic."""
    return time.time()


def cpu_time_s() -> float:
    """CPU seconds that this thread has used, for measurements on a busy machine."""
    return time.thread_time()


async def within_ticks(work: Coroutine[Any, Any, Result], limit_s: float) -> Result:
    """The result of `work`. Raises TimeoutError after `limit_s` seconds of running time.

    The limit is counted in ticks of this process, so a pause of it counts as one tick: on a starved
    machine, the processes that it waits for hardly run either.
    """
    task = asyncio.ensure_future(work)
    try:
        for _ in range(max(1, round(limit_s / TICK_S))):
            await asyncio.wait({task}, timeout=TICK_S)
            if task.done():
                return task.result()
        raise TimeoutError
    finally:
        task.cancel()
