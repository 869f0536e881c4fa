"""How long a request waits for its engine. Knows no engine."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitLimits:
    """How long a request waits for its engine before it is given up."""

    first_reply_s: float = 300.0
    next_reply_s: float = 60.0


@asynccontextmanager
async def silence(limits: WaitLimits) -> AsyncIterator[Callable[[], None]]:
    """Raises TimeoutError when what it gives was not called for long.

    The timer is set anew only after a tenth of the limit, not with every token: it may end a wait
    that much sooner.
    """
    loop = asyncio.get_running_loop()
    coarse_s, again_at_s = limits.next_reply_s / 10, -math.inf
    async with asyncio.timeout(limits.first_reply_s) as limit:

        def heard() -> None:
            nonlocal again_at_s
            now = loop.time()
            if now >= again_at_s:
                again_at_s = now + coarse_s
                limit.reschedule(now + limits.next_reply_s)

        yield heard
