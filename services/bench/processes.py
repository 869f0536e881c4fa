"""Starts the processes of a measurement, waits until they answer, and ends them all."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

from services.bench.parts import ROUTER, STOCK, Ports
from services.node.plan import Part, Rank
from services.node.processes import Death, Keeper, Processes, tail
from services.node.ready import http_ok, is_ready, wait_until_ready
from shared.clock import Clock
from shared.errors import DeadlinePassed, PlannerUnavailable, SlosError
from shared.ports import FreePorts
from shared.rpc.channels import PlannerClient
from shared.rpc.identity import own_identity

_ASK_EVERY_S: Final = 0.25
_READY_PAGES: Final = {STOCK: "/health", ROUTER: "/v1/models"}  # a router's own may precede engines


class PartDied(SlosError):
    """A process of the measurement ended by itself."""


def pick_ports() -> Ports:
    """Picks all ports together, so that they differ."""
    with FreePorts() as ports:
        return Ports(
            planner=ports.pick(),
            planner_metrics=ports.pick(),
            engine=ports.pick(),
            engine_kv=ports.pick(),
            gateway=ports.pick(),
            stock=ports.pick(),
            router=ports.pick(),
        )


@asynccontextmanager
async def running(parts: Sequence[Part], clock: Clock, limit_s: float) -> AsyncIterator[None]:
    """Starts all processes, yields when they are ready, and ends them.

    Raises DeadlinePassed, and PartDied with the end of the process's log.
    """
    with Keeper() as keeper:
        processes = Processes(clock=clock, keeper=keeper, say=lambda _: None)
        try:
            for part in parts:
                await processes.start(part)
            await _until_ready(parts, processes, clock, limit_s)
            yield
        finally:
            for rank in Rank:
                await processes.stop(part.name for part in parts if part.rank is rank)


async def _until_ready(
    parts: Sequence[Part], processes: Processes, clock: Clock, limit_s: float
) -> None:
    ready = asyncio.create_task(_all_ready(parts, clock))
    dying = asyncio.create_task(processes.death())
    try:
        async with asyncio.timeout(limit_s):
            await asyncio.wait([ready, dying], return_when=asyncio.FIRST_COMPLETED)
        if dying.done():
            raise PartDied(_last_words(dying.result()))
        ready.result()
    except TimeoutError as error:
        logs = parts[0].log.parent
        raise DeadlinePassed(
            f"Not all processes were ready within {limit_s:g} s. See the logs in {logs}, "
            "or give more time with --start-limit-s."
        ) from error
    finally:
        ready.cancel()
        dying.cancel()
        await asyncio.gather(ready, dying, return_exceptions=True)


async def _all_ready(parts: Sequence[Part], clock: Clock) -> None:
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(wait_until_ready(part, clock, _is_ready))
        group.create_task(_wait_until_attached(parts, clock))


def _last_words(death: Death) -> str:
    return f"{death}. The end of its log ({death.log}):\n{tail(death.log)}"


async def _is_ready(part: Part) -> bool:
    page = _READY_PAGES.get(part.name)
    return await (http_ok(f"{part.address}{page}") if page else is_ready(part))


async def _wait_until_attached(parts: Sequence[Part], clock: Clock) -> None:
    """Waits until the planner, if there is one, shows as many engines as were started."""
    planner = next((part.address for part in parts if part.rank is Rank.PLANNER), None)
    if planner is None:
        return
    wanted = sum(part.rank is Rank.ENGINE for part in parts)
    client = PlannerClient(planner, own_identity())
    try:
        while not await _shows(client, wanted):
            await clock.sleep(_ASK_EVERY_S)
    finally:
        await client.close()


async def _shows(client: PlannerClient, engines: int) -> bool:
    try:
        async with aclosing(client.watch()) as views:
            async for view in views:
                if len(view) >= engines:
                    return True
    except PlannerUnavailable:
        pass
    return False
