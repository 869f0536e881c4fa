"""How long a request waits for its engine. Knows no engine."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shared.alarm import Alarm, time_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitLimits:
    """How long a request waits for its engine before it is given up."""

    first_reply_s: float = 300.0
    next_reply_s: float = 60.0


@dataclass(slots=True, eq=False)
class Patience:
    """The wait for one engine. The alarm is set anew only after a tenth of the limit, not with
    every token: it may end a wait that much sooner.
    """

    limits: WaitLimits
    alarm: Alarm
    given_up: bool = False
    _again_at_s: float = field(default=-math.inf)

    def heard(self) -> None:
        """The engine gave something."""
        now = asyncio.get_running_loop().time()
        if now >= self._again_at_s and not self.given_up:
            self._again_at_s = now + self.limits.next_reply_s / 10
            self.alarm.set(self.limits.next_reply_s)

    def give_up(self) -> None:
        """Ends the wait now: nothing will come."""
        self.given_up = True
        self.alarm.set(0.0)


@asynccontextmanager
async def silence(limits: WaitLimits) -> AsyncIterator[Patience]:
    """Raises TimeoutError when the engine was not heard for long, or was given up."""
    async with time_limit(limits.first_reply_s) as alarm:
        yield Patience(limits, alarm)
