"""Limits how long a request waits for its engine."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shared.alarm import Alarm, time_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitLimits:
    """Time limits for the first and each later reply of an engine to a request."""

    first_reply_s: float = 300.0
    next_reply_s: float = 60.0


@dataclass(slots=True, eq=False)
class Patience:
    """The wait for one engine.

    Replies reset the alarm at most once per tenth of the limit, to spare work per token; a wait may
    end that much sooner.
    """

    limits: WaitLimits
    alarm: Alarm
    given_up: bool = False
    _again_at_s: float = field(default=-math.inf)

    def heard(self) -> None:
        """Notes a reply of the engine."""
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
    """Raises TimeoutError if the engine sends nothing within the limits, or is given up."""
    async with time_limit(limits.first_reply_s) as alarm:
        yield Patience(limits, alarm)
