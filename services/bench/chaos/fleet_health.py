"""Checks whether all of a fleet serves, and whether its engines still hold requests or KV."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import grpc
import psutil

from services.bench.chaos.fleet import Fleet
from services.node.plan import Part
from services.node.ready import identity_of, is_ready
from shared.clock import Clock
from shared.errors import DeadlinePassed, PlannerUnavailable
from shared.rpc import slos_pb2 as pb
from shared.rpc.channels import PlannerClient, open_channel
from shared.rpc.slos_pb2_grpc import EngineStub

_ASK_EVERY_S: Final = 0.25
_ANSWER_LIMIT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHealth:
    """Asks every process directly, not over a link."""

    fleet: Fleet
    clock: Clock

    async def wait_until_serving(self, limit_s: float, gone: int | None = None) -> None:
        """Waits until every process serves and the planner has every engine.

        It first waits for the end of the process `gone`, a pid. Raises DeadlinePassed.
        """
        until_s = self.clock.now() + limit_s
        while (gone is not None and psutil.pid_exists(gone)) or not await self._all_serve():
            if self.clock.now() >= until_s:
                raise DeadlinePassed(f"Not all parts serve after {limit_s:g} s.")
            await self.clock.sleep(_ASK_EVERY_S)

    async def wait_until_idle(self, limit_s: float) -> str:
        """Waits up to `limit_s` until engines hold nothing; returns what they hold, else empty."""
        until_s = self.clock.now() + limit_s
        while (held := await self._held()) and self.clock.now() < until_s:
            await self.clock.sleep(_ASK_EVERY_S)
        return ", ".join(f"{name}: {what}" for name, what in held.items())

    async def _all_serve(self) -> bool:
        plan = self.fleet.plan
        ready = await asyncio.gather(*(is_ready(part) for part in plan.parts))
        return all(ready) and plan.engine_names <= await self._serving()

    async def _serving(self) -> frozenset[str]:
        """Names of the engines that the planner gives requests to."""
        plan = self.fleet.plan
        client = PlannerClient(plan.planner, identity_of(plan.parts[0]))
        try:
            async with asyncio.timeout(_ANSWER_LIMIT_S), aclosing(client.watch()) as views:
                async for view in views:
                    return frozenset(one.description.name for one in view if one.serves)
        except (PlannerUnavailable, TimeoutError):
            pass
        finally:
            await client.close()
        return frozenset()

    async def _held(self) -> dict[str, str]:
        told = await asyncio.gather(*(_held_by(part) for part in self.fleet.engines))
        names = [part.name for part in self.fleet.engines]
        return {name: what for name, what in zip(names, told, strict=True) if what}


async def _held_by(part: Part) -> str:
    async with open_channel(part.address, identity_of(part)) as channel:
        try:
            reply = await EngineStub(channel).Health(pb.HealthRequest(), timeout=_ANSWER_LIMIT_S)
        except grpc.aio.AioRpcError as error:
            return f"no answer ({error.code().name})"
    requests = reply.running + reply.waiting
    blocks = reply.kv_blocks - reply.free_kv_blocks
    return f"{requests} requests and {blocks} KV blocks" if requests or blocks else ""
