"""Runs the test: undisturbed answers, then faults under load, then a check for leftovers."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from services.bench.chaos.answer import Answer
from services.bench.chaos.clients import Clients
from services.bench.chaos.faults import Fault, drawn
from services.bench.chaos.fleet import Fleet
from services.bench.chaos.fleet_health import FleetHealth
from services.bench.chaos.injector import FaultInjector
from services.bench.chaos.options import ChaosOptions
from services.bench.chaos.processes import Use, use_of
from services.bench.chaos.requests import catalogue
from services.bench.chaos.task_counts import tasks_on
from services.bench.chaos.verdicts import FaultRecord
from services.bench.http_client import http_session
from shared.clock import Clock
from shared.errors import DeadlinePassed, SlosError

_ANSWER_LIMIT_S: Final = 180.0
_RECOVERY_LIMIT_S: Final = 300.0
_IDLE_LIMIT_S: Final = 120.0  # leases of unfetched KV expire within 30 s
_UNDISTURBED_AT_ONCE: Final = 2


class NotUndisturbed(SlosError):
    """A request failed before the first fault."""


@dataclass(slots=True, kw_only=True)
class Found:
    """The results of a run. Times are the clock's."""

    began_at_s: float = 0.0
    ended_at_s: float = 0.0
    undisturbed: dict[int, Answer] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    faults: list[FaultRecord] = field(default_factory=list)
    hostile_answers: int = 0
    wrongly_answered: list[str] = field(default_factory=list)
    used_before: dict[str, Use] = field(default_factory=dict)
    used_after: dict[str, Use] = field(default_factory=dict)
    held: str = ""  # what engines still hold at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosRun:
    """One run on a started fleet. `say` takes lines of progress."""

    options: ChaosOptions
    fleet: Fleet
    clock: Clock
    say: Callable[[str], None]

    async def run(self, found: Found) -> None:
        """Runs the test and fills `found`. Raises NotUndisturbed."""
        requests = catalogue(self.fleet.plan.model_name, self.options.answers, self.options.seed)
        health = FleetHealth(fleet=self.fleet, clock=self.clock)
        async with http_session(_ANSWER_LIMIT_S) as session:
            clients = Clients(
                session=session,
                gateways=[part.address for part in self.fleet.gateways],
                clock=self.clock,
            )
            await health.wait_until_serving(_RECOVERY_LIMIT_S)
            answers = await clients.each(requests, _UNDISTURBED_AT_ONCE)
            _check(answers)
            found.undisturbed = {one.number: one for one in answers}
            self.say(f"{len(answers)} requests answered undisturbed")
            injector = FaultInjector(
                fleet=self.fleet,
                session=session,
                requests=requests,
                clock=self.clock,
                chance=random.Random(f"{self.options.seed} deeds"),  # noqa: S311 - chance
            )
            found.used_before = await self._use()
            done = asyncio.Event()
            load = asyncio.create_task(
                clients.on_and_on(requests, self.options.clients, self.options.seed, done)
            )
            found.began_at_s = self.clock.now()
            try:
                await self._disturb(injector, health, found)
            finally:
                done.set()
                await load
            found.ended_at_s = self.clock.now()
        found.answers = clients.answers
        found.hostile_answers = injector.hostile_answers
        found.wrongly_answered = injector.wrongly_answered
        found.held = await health.wait_until_idle(_IDLE_LIMIT_S)
        found.used_after = await self._use()

    async def _use(self) -> dict[str, Use]:
        parts = self.fleet.plan.parts
        tasks = await tasks_on({part.name: self.fleet.metrics_page(part) for part in parts})
        return use_of(parts, tasks)

    async def _disturb(self, injector: FaultInjector, health: FleetHealth, found: Found) -> None:
        chance = random.Random(self.options.seed)  # noqa: S311 - chance, not a secret
        until_s = self.clock.now() + 60 * self.options.minutes
        for fault in drawn(self.options.faults, self.fleet.targets, chance):
            calm_s = chance.expovariate(1 / self.options.calm_s)
            if self.clock.now() + calm_s >= until_s:
                break
            await self.clock.sleep(calm_s)
            found.faults.append(await self._inject(fault, injector, health))
        await self.clock.sleep(until_s - self.clock.now())

    async def _inject(
        self, fault: Fault, injector: FaultInjector, health: FleetHealth
    ) -> FaultRecord:
        began_at_s = self.clock.now()
        killed = await injector.inject(fault)
        ended_at_s = self.clock.now()
        try:
            await health.wait_until_serving(_RECOVERY_LIMIT_S, gone=killed)
            recovered_at_s = self.clock.now()
        except DeadlinePassed:
            recovered_at_s = None
        if recovered_at_s is None:
            self.say(f"{fault}: not all serve again")
        else:
            self.say(f"{fault}: all serve again after {recovered_at_s - ended_at_s:.1f} s")
        return FaultRecord(
            fault=fault, began_at_s=began_at_s, ended_at_s=ended_at_s, recovered_at_s=recovered_at_s
        )


def _check(answers: list[Answer]) -> None:
    for one in answers:
        if one.refusal or one.fault or not one.finishes:
            what = one.refusal or one.fault or "no end"
            raise NotUndisturbed(f"Request {one.number} ({one.kind}) has no answer: {what}")
