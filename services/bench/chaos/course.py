"""Runs the test: undisturbed answers, then faults under load, then a check for leftovers."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from services.bench.chaos.clients import Clients
from services.bench.chaos.deeds import Deeds
from services.bench.chaos.faults import Fault, drawn
from services.bench.chaos.fleet import Fleet
from services.bench.chaos.heard import Heard
from services.bench.chaos.options import ChaosOptions
from services.bench.chaos.processes import Use, use_of
from services.bench.chaos.requests import catalogue
from services.bench.chaos.task_counts import tasks_on
from services.bench.chaos.verdicts import Lived
from services.bench.chaos.wholeness import Wholeness
from services.bench.http_client import http_session
from shared.clock import Clock
from shared.errors import DeadlinePassed, SlosError

_ANSWER_LIMIT_S: Final = 180.0
_WHOLE_LIMIT_S: Final = 300.0
_REST_LIMIT_S: Final = 120.0  # leases of unfetched KV expire within 30 s
_UNDISTURBED_AT_ONCE: Final = 2


class NotUndisturbed(SlosError):
    """A request failed before the first fault."""


@dataclass(slots=True, kw_only=True)
class Found:
    """The results of a run. Times are the clock's."""

    began_at_s: float = 0.0
    ended_at_s: float = 0.0
    undisturbed: dict[int, Heard] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    lived: list[Lived] = field(default_factory=list)
    hostile_answers: int = 0
    wrongly_answered: list[str] = field(default_factory=list)
    used_before: dict[str, Use] = field(default_factory=dict)
    used_after: dict[str, Use] = field(default_factory=dict)
    held: str = ""  # what engines still hold at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One run on a started fleet. `say` takes lines of progress."""

    options: ChaosOptions
    fleet: Fleet
    clock: Clock
    say: Callable[[str], None]

    async def run(self, found: Found) -> None:
        """Runs the test and fills `found`. Raises NotUndisturbed."""
        requests = catalogue(self.fleet.plan.model_name, self.options.answers, self.options.seed)
        wholeness = Wholeness(fleet=self.fleet, clock=self.clock)
        async with http_session(_ANSWER_LIMIT_S) as session:
            clients = Clients(
                session=session,
                gateways=[part.address for part in self.fleet.gateways],
                clock=self.clock,
            )
            await wholeness.wait(_WHOLE_LIMIT_S)
            heard = await clients.each(requests, _UNDISTURBED_AT_ONCE)
            _check(heard)
            found.undisturbed = {one.number: one for one in heard}
            self.say(f"{len(heard)} requests answered undisturbed")
            deeds = Deeds(
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
                await self._disturb(deeds, wholeness, found)
            finally:
                done.set()
                await load
            found.ended_at_s = self.clock.now()
        found.heard = clients.heard
        found.hostile_answers = deeds.hostile_answers
        found.wrongly_answered = deeds.wrongly_answered
        found.held = await wholeness.rest(_REST_LIMIT_S)
        found.used_after = await self._use()

    async def _use(self) -> dict[str, Use]:
        parts = self.fleet.plan.parts
        tasks = await tasks_on({part.name: self.fleet.metrics_page(part) for part in parts})
        return use_of(parts, tasks)

    async def _disturb(self, deeds: Deeds, wholeness: Wholeness, found: Found) -> None:
        chance = random.Random(self.options.seed)  # noqa: S311 - chance, not a secret
        until_s = self.clock.now() + 60 * self.options.minutes
        for fault in drawn(self.options.faults, self.fleet.targets, chance):
            calm_s = chance.expovariate(1 / self.options.calm_s)
            if self.clock.now() + calm_s >= until_s:
                break
            await self.clock.sleep(calm_s)
            found.lived.append(await self._live(fault, deeds, wholeness))
        await self.clock.sleep(until_s - self.clock.now())

    async def _live(self, fault: Fault, deeds: Deeds, wholeness: Wholeness) -> Lived:
        began_at_s = self.clock.now()
        killed = await deeds.do(fault)
        ended_at_s = self.clock.now()
        try:
            await wholeness.wait(_WHOLE_LIMIT_S, gone=killed)
            whole_at_s = self.clock.now()
        except DeadlinePassed:
            whole_at_s = None
        again = "not whole again" if whole_at_s is None else f"{whole_at_s - ended_at_s:.1f} s"
        self.say(f"{fault}: all serve again after {again}")
        return Lived(
            fault=fault, began_at_s=began_at_s, ended_at_s=ended_at_s, whole_at_s=whole_at_s
        )


def _check(heard: list[Heard]) -> None:
    for one in heard:
        if one.refusal or one.fault or not one.finishes:
            what = one.refusal or one.fault or "no end"
            raise NotUndisturbed(f"Request {one.number} ({one.kind}) has no answer: {what}")
