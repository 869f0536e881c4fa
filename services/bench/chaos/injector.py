"""Injects a fault and reverts it."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import orjson

from services.bench.chaos.faults import DELAY_S, KILLS, LINK_FAULTS, Fault, Kind
from services.bench.chaos.fleet import Fleet
from services.bench.chaos.hostile import Draw, answer_to, fields_of, is_right
from services.bench.chaos.links import Link
from services.bench.chaos.processes import core_of, limit_files, process_of, send
from services.bench.chaos.requests import Request
from shared.clock import Clock

_HOSTILE_AT_ONCE: Final = 4
_SLOW_AT_ONCE: Final = 8
_ANSWER_LIMIT_S: Final = 60.0


@dataclass(slots=True, kw_only=True)
class FaultInjector:
    """Injects faults. `wrongly_answered` lists hostile requests with a wrong answer."""

    fleet: Fleet
    session: aiohttp.ClientSession
    requests: list[Request]
    clock: Clock
    chance: random.Random
    hostile_answers: int = 0
    wrongly_answered: list[str] = field(default_factory=list)
    _fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    async def inject(self, fault: Fault) -> int | None:
        """Injects a fault and waits for its end; the pid of the process that it kills, if any."""
        if fault.kind in LINK_FAULTS:
            await self._disturb(self.fleet.link(fault.target), fault)
        elif fault.kind is Kind.HOSTILE:
            await self._for(fault.lasts_s, _HOSTILE_AT_ONCE, self._send_hostile)
        elif fault.kind is Kind.SLOW_READERS:
            await self._for(fault.lasts_s, _SLOW_AT_ONCE, self._ask_and_not_read)
        elif fault.kind is Kind.DISK_FULL:
            await self._fill_disk(fault)
        else:
            return await self._signal(fault)
        return None

    async def _signal(self, fault: Fault) -> int | None:
        part = self.fleet.part(fault.target)
        find = core_of if fault.kind in (Kind.KILL_CORE, Kind.STOP_CORE) else process_of
        process = find(part)
        if fault.kind in KILLS:
            send(process, signal.SIGKILL)
            # A core's host takes a moment to notice, and then ends.
            host = process_of(part)
            return host.pid if host else None
        send(process, signal.SIGSTOP)
        try:
            await self.clock.sleep(fault.lasts_s)
        finally:
            send(process, signal.SIGCONT)
        return None

    async def _disturb(self, link: Link, fault: Fault) -> None:
        if fault.kind is Kind.CUT:
            link.cut()
        elif fault.kind is Kind.SILENCE:
            link.silence()
        else:
            link.delay_s = DELAY_S
        try:
            await self.clock.sleep(fault.lasts_s)
        finally:
            link.mend()

    async def _fill_disk(self, fault: Fault) -> None:
        part = self.fleet.part(fault.target)
        limit_files(part, full=True)
        try:
            await self.clock.sleep(fault.lasts_s)
        finally:
            limit_files(part, full=False)

    async def _for(
        self, seconds: float, at_once: int, client: Callable[[float], Awaitable[None]]
    ) -> None:
        until_s = self.clock.now() + seconds

        async def repeat() -> None:
            while self.clock.now() < until_s:
                await client(until_s)

        await asyncio.gather(*(repeat() for _ in range(at_once)))

    async def _send_hostile(self, _until_s: float) -> None:
        url = self._any_gateway()
        fields = await self._known_fields(url)
        draw = Draw(model=self.fleet.plan.model_name, fields=fields, chance=self.chance)
        host, _, port = url.removeprefix("http://").rpartition(":")
        hostile = draw.one()
        status, body = await answer_to(hostile, (host, int(port)), _ANSWER_LIMIT_S)
        self.hostile_answers += 1
        if not is_right(status, body):
            self.wrongly_answered.append(f"{hostile.path}: {status} {body[:200]!r}")

    async def _known_fields(self, url: str) -> Mapping[str, tuple[str, ...]]:
        if not self._fields:
            async with self.session.get(f"{url}/openapi.json") as response:
                self._fields = fields_of(orjson.loads(await response.read()))
        return self._fields

    async def _ask_and_not_read(self, until_s: float) -> None:
        """Asks for a stream and reads only its head, until the fault is over."""
        request = self.chance.choice([one for one in self.requests if one.body["stream"]])
        url = f"{self._any_gateway()}{request.path}"
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self.session.post(url, json=request.once("")):
                await self.clock.sleep(until_s - self.clock.now())

    def _any_gateway(self) -> str:
        return self.chance.choice(self.fleet.gateways).address
