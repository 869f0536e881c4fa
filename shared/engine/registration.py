"""Keeping an engine attached to its planner: registration, reports up, policies down, for ever.

Serving never waits for it.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Final

from shared.clock import Clock
from shared.engine.state import EngineState
from shared.engines import Policy
from shared.errors import EngineReplaced, PlannerUnavailable, RegistrationRefused
from shared.rpc.channels import Beat, DrainingNotice, EngineNews, PlannerClient

_LOG = logging.getLogger(__name__)
BEAT_S: Final = 0.5  # the planner hears of a host at least so often


@dataclass(slots=True)
class BackOff:
    """Waits that double from `first_s` to `most_s`."""

    first_s: float = 0.1
    most_s: float = 5.0
    _next_s: float = field(default=0.0)

    def next_s(self) -> float:
        wait_s = max(self.first_s, self._next_s)
        self._next_s = min(self.most_s, 2 * wait_s)
        return wait_s

    def reset(self) -> None:
        self._next_s = 0.0


@dataclass(slots=True)
class Registration:
    """One engine's tie to one planner."""

    client: PlannerClient
    state: EngineState
    clock: Clock
    on_policy: Callable[[Policy], Awaitable[None]]
    report_every_s: float
    overdue_s: Callable[[], float] = lambda: 0.0  # of the engine core, for the planner
    draining: bool = False
    refused_wait_s: float = 30.0
    _accepted_once: bool = False
    _said_lost: bool = False
    _attachments: int = 0
    _back_off: BackOff = field(default_factory=BackOff)

    def set_draining(self, draining: bool) -> None:
        """Tells the planner that this engine takes nothing new, or takes requests again."""
        self.draining = draining
        self.state.wake()

    async def keep(self) -> None:
        """Stays attached until cancelled.

        Raises RegistrationRefused only before the first acceptance: an engine that serves
        goes on serving. Raises EngineReplaced at any time.
        """
        while True:
            try:
                await self._attach()
            except PlannerUnavailable as error:
                self._say_lost(error)
                await self.clock.sleep(self._back_off.next_s())
            except EngineReplaced:
                raise
            except RegistrationRefused as error:
                if not self._accepted_once:
                    raise
                _LOG.error("The planner refuses this engine, which goes on serving: %s", error)
                await self.clock.sleep(self.refused_wait_s)

    async def _attach(self) -> None:
        self._attachments += 1
        self.state.restate()
        try:
            async with aclosing(
                self.client.attach(self.state.description, self._news())
            ) as policies:
                async for policy in policies:
                    self._note_attached()
                    await self.on_policy(policy)
        finally:
            self.state.attached = False

    def _note_attached(self) -> None:
        if not self.state.attached:
            _LOG.info("attached to the planner at %s", self.client.address)
        self.state.attached = self._accepted_once = True
        self._said_lost = False
        self._back_off.reset()

    def _say_lost(self, error: PlannerUnavailable) -> None:
        if not self._said_lost:
            _LOG.warning("%s Trying again until it answers; serving goes on.", error)
        self._said_lost = True

    async def _news(self) -> AsyncIterator[EngineNews]:
        """What there is to tell, until the next attachment begins.

        gRPC may go on reading the news of a stream that has ended: it must take none of the next.
        """
        told_draining = False
        beat_at_s = -math.inf
        attachment = self._attachments
        while attachment == self._attachments:
            if self.draining is not told_draining:
                told_draining = self.draining
                yield DrainingNotice(draining=told_draining)
            if reports := self.state.take_unsent():
                yield reports
                await self.clock.sleep(self.report_every_s)
            if self.clock.now() >= beat_at_s:
                beat_at_s = self.clock.now() + BEAT_S
                yield Beat(overdue_s=self.overdue_s())
            if not self.state.unsent:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.state.until_news(), BEAT_S)
