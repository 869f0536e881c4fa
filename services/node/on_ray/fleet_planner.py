"""The methods of the planner's actor: its address, the members, and the wanted actors."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Final

from services.node.on_ray.config import FleetOptions
from services.node.on_ray.members import Member, Members
from services.node.on_ray.place import Service
from services.node.on_ray.supervised import Supervised
from services.node.on_ray.targets import Targets
from shared.clock import Clock
from shared.engines import ScaleAdvice
from shared.errors import PlannerUnavailable
from shared.rpc.channels import PlannerClient
from shared.rpc.identity import identity_from

_ADVICE_EVERY_S: Final = 1.0
_ANSWER_LIMIT_S: Final = 5.0


class FleetPlanner:
    """The planner's process and the state of the fleet.

    Without autoscaling, numbers of actors stay until an operator sets them. With it, prefill and
    decode follow the planner's advice.
    """

    def __init__(self, fleet: FleetOptions, supervised: Supervised, clock: Clock) -> None:
        self._fleet = fleet
        self._supervised = supervised
        self._clock = clock
        self._members = Members()
        self._targets = Targets(down_after_s=fleet.up.scale_down_after_s)
        self._present: dict[str, int] = {}
        self._advice: ScaleAdvice | None = None
        self._advised_at_s = clock.now() - _ADVICE_EVERY_S

    async def address(self) -> str:
        """The planner's address, possibly before it serves: engines wait for it."""
        return self._supervised.part.address

    async def hear(self, member: Member) -> str:
        """Notes that a member serves; returns the planner's present address."""
        self._members.hear(member, self._clock.now())
        return self._supervised.part.address

    async def forget(self, name: str) -> None:
        self._members.forget(name)

    async def members(self) -> Sequence[Member]:
        return self._members.known(self._clock.now())

    async def is_complete(self) -> bool:
        """Whether every engine among the members has registered.

        Raises EngineLost when the planner's process has ended.
        """
        self._supervised.raise_if_ended()
        wanted = {one.name for one in await self.members() if one.service is not Service.GATEWAY}
        client = self._client()
        try:
            async with asyncio.timeout(_ANSWER_LIMIT_S), aclosing(client.watch()) as views:
                async for view in views:
                    return wanted <= {engine.description.name for engine in view}
        except (PlannerUnavailable, TimeoutError):  # it is still starting
            pass
        finally:
            await client.close()
        return False

    async def fix(self, counts: Mapping[str, int | None]) -> None:
        self._targets.fix(counts)

    async def wanted(self, service: str, present: int) -> int:
        """How many actors of a service there should be; `present` is Serve's number now."""
        self._present[service] = present
        advised = await self._advised(service)
        return self._targets.wanted(service, present, advised, self._clock.now())

    async def _advised(self, service: str) -> int | None:
        if not self._fleet.up.autoscale or service == Service.GATEWAY:
            return None
        now = self._clock.now()
        if now - self._advised_at_s >= _ADVICE_EVERY_S:
            self._advised_at_s = now
            self._advice = await self._ask()
        if self._advice is None:
            return None
        prefill = service == Service.PREFILL
        return self._advice.desired_prefill if prefill else self._advice.desired_decode

    async def _ask(self) -> ScaleAdvice | None:
        """Asks the planner for advice; None while it is away, so that the numbers stay."""
        last = self._advice
        registered = (last.present_prefill, last.present_decode) if last else (0, 0)
        starting = [
            max(0, self._present.get(service, 0) - there)
            for service, there in zip((Service.PREFILL, Service.DECODE), registered, strict=True)
        ]
        client = self._client()
        try:
            return await client.scale(starting_prefill=starting[0], starting_decode=starting[1])
        except PlannerUnavailable:
            return None
        finally:
            await client.close()

    def _client(self) -> PlannerClient:
        part = self._supervised.part
        return PlannerClient(part.address, identity_from(part.secret_file))

    async def stop(self) -> None:
        await asyncio.to_thread(self._supervised.stop)
