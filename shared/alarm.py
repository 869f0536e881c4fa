"""Time limits on silence, for an event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

_SECOND_LOOK_S: Final = 0.05


class Alarm:
    """Calls `action` when the time set last has passed, after pending input has been read.

    The loop of a process that was paused (SIGSTOP) runs due timers before it reads the input that
    came meanwhile. A second, short timer lets it read that input first.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._action = action
        self._handle: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        return self._handle is not None

    def set(self, after_s: float) -> None:
        """Starts the time anew, in `after_s` seconds."""
        self.stop()
        self._handle = self._loop.call_later(after_s, self._look_again)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look_again(self) -> None:
        self._handle = self._loop.call_later(_SECOND_LOOK_S, self._ring)

    def _ring(self) -> None:
        self._handle = None
        self._action()


@asynccontextmanager
async def time_limit(limit_s: float) -> AsyncIterator[Alarm]:
    """Raises TimeoutError in its body when the alarm rings; the body may set the alarm anew."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as timer:
        alarm = Alarm(lambda: timer.reschedule(loop.time()))
        alarm.set(limit_s)
        try:
            yield alarm
        finally:
            alarm.stop()
