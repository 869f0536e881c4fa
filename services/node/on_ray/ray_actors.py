"""The Ray actors of a fleet. Each supervises one process; requests go to the processes directly.

The planner is a named actor, which Ray restarts. A `Replica` is an actor of Ray Serve, and Serve
asks the `ScalePolicy` of each service how many to keep.
"""

import os
import threading
from contextlib import suppress
from typing import Any, Final

import ray
from ray import serve
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from services.node.on_ray.config import FleetOptions
from services.node.on_ray.fleet_planner import FleetPlanner
from services.node.on_ray.members import Member
from services.node.on_ray.place import Here, Service, part_on, planner_on, reached_at
from services.node.on_ray.supervised import Supervised, end_actor_with, here
from services.node.processes import Keeper
from services.node.ready import is_alive
from shared.clock import MonotonicClock
from shared.errors import EngineLost

NAMESPACE: Final = "slos-serve"
PLANNER: Final = "slos-planner"
ANSWER_LIMIT_S: Final = 30.0
_LAST_WORDS_S: Final = 2.0
_ALIVE_LIMIT_S: Final = 20.0
_ASK_TARGET_EVERY_S: Final = 1.0


def _here(fleet: FleetOptions) -> Here:
    return here(fleet, ray.util.get_node_ip_address())


class _PlannerActor(FleetPlanner):
    """The planner's process as a named actor, with the methods of `FleetPlanner`."""

    def __init__(self, fleet: FleetOptions) -> None:
        supervised = Supervised.start(planner_on(fleet, _here(fleet)), Keeper().__enter__())
        super().__init__(fleet, supervised, MonotonicClock())
        end_actor_with(supervised, after_s=_LAST_WORDS_S)


_Planner = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_PlannerActor)


def planner_of(fleet: FleetOptions) -> Any:
    """The planner's actor; the first caller makes it, on the cluster's head node if possible."""
    return _Planner.options(
        name=PLANNER,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        scheduling_strategy=NodeAffinitySchedulingStrategy(_head_node(), soft=True),
    ).remote(fleet)


def _head_node() -> str:
    """The node that lives as long as the cluster."""
    heads = [node for node in ray.nodes() if node["Resources"].get("node:__internal_head__")]
    return str((heads or ray.nodes())[0]["NodeID"])


class Replica:
    """One actor of a service: serves while its process is ready, and drains at its end."""

    _supervised: Supervised | None = None

    # Serve awaits it
    async def __init__(self, fleet: FleetOptions, service: Service) -> None:  # type: ignore[misc]
        self._clock = MonotonicClock()
        self._planner = planner_of(fleet)
        self._planner_address = await self._planner.address.remote()
        node = _here(fleet)
        name = f"{service}-{serve.get_replica_context().replica_id.unique_id}"
        part = part_on(fleet, node, service, name, self._planner_address)
        self._supervised = supervised = Supervised.start(part, Keeper().__enter__())
        await supervised.until_ready(self._clock, fleet.up.start_limit_s)
        self._member = Member(
            name=name,
            service=service,
            address=reached_at(part.address, fleet.up.host, node.address),
            node=ray.get_runtime_context().get_node_id(),
            actor_process=os.getpid(),
            process=supervised.process.pid,
        )
        await self._planner.hear.remote(self._member)
        end_actor_with(supervised, after_s=0.0)

    async def check_health(self) -> None:
        """Raises when the process is not alive or the planner has moved; Serve replaces an actor
        after three times.
        """
        assert self._supervised is not None
        await self._supervised.until_ready(self._clock, _ALIVE_LIMIT_S, ask=is_alive)
        address = await self._planner.hear.remote(self._member)
        if address != self._planner_address:
            raise EngineLost(f"The planner moved from {self._planner_address} to {address}.")

    def __del__(self) -> None:
        """Drains and ends the process; Serve calls this once and waits for it."""
        if self._supervised is not None and not self._supervised.stopping:
            self._planner.forget.remote(self._supervised.part.name)
            self._supervised.stop()


class ScalePolicy:
    """Serve's autoscaling policy of one service: returns the target of the planner's actor.

    Serve's control loop calls it; a thread asks the actor, so that the loop does not wait.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._clock = MonotonicClock()
        self._asked_at_s = -_ASK_TARGET_EVERY_S
        self._asking: threading.Thread | None = None
        self._wanted: int | None = None

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        present = context.target_num_replicas
        now = self._clock.now()
        asking = self._asking is not None and self._asking.is_alive()
        if not asking and now - self._asked_at_s >= _ASK_TARGET_EVERY_S:
            self._asked_at_s = now
            self._asking = threading.Thread(target=self._ask, args=(present,), daemon=True)
            self._asking.start()
        wanted, self._wanted = self._wanted, None
        return (present if wanted is None else wanted), {}

    def _ask(self, present: int) -> None:
        with suppress(ray.exceptions.RayError, ValueError):  # no planner now: the number stays
            actor = ray.get_actor(PLANNER, namespace=NAMESPACE)
            answer = actor.wanted.remote(self._service, present)
            self._wanted = ray.get(answer, timeout=ANSWER_LIMIT_S)
