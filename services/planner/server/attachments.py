"""What is to be sent to attached engines and to watchers, apart from gRPC."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace

from services.planner.state.engine_state import EngineState
from shared.clock import Clock
from shared.engines import Policy


@dataclass(slots=True, eq=False)
class Attachment:
    """One engine's stream, from acceptance until `end`. Keeps only the newest unsent policy."""

    engine: EngineState
    policy: Policy = field(default_factory=lambda: Policy(version=1))
    ended_because: str = ""
    _unsent: bool = True
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, policy: Policy) -> Policy:
        """Queues the policy under the next version number, and returns it."""
        self.policy = replace(policy, version=self.policy.version + 1)
        self._unsent = True
        self._wake.set()
        return self.policy

    def end(self, because: str) -> None:
        self.ended_because = self.ended_because or because
        self._wake.set()

    async def policies(self) -> AsyncGenerator[Policy, None]:
        """Yields the first policy at once, then each new one, until the end."""
        while not self.ended_because:
            if self._unsent:
                self._unsent = False
                yield self.policy
            else:
                self._wake.clear()
                await self._wake.wait()


class Bell:
    """Notifies listeners of changes; several within `least_pause_s` count as one."""

    def __init__(self, clock: Clock, least_pause_s: float) -> None:
        self._clock = clock
        self._least_pause_s = least_pause_s
        self._listeners: set[asyncio.Event] = set()
        self.silenced = False

    def ring(self) -> None:
        for listener in self._listeners:
            listener.set()

    def silence(self) -> None:
        """Ends all listening, for good."""
        self.silenced = True
        self.ring()

    async def listen(self) -> AsyncGenerator[None, None]:
        """Yields once at once, then after changes."""
        heard = asyncio.Event()
        self._listeners.add(heard)
        try:
            while not self.silenced:
                heard.clear()
                yield
                await heard.wait()
                if not self.silenced:
                    await self._clock.sleep(self._least_pause_s)
        finally:
            self._listeners.discard(heard)
