"""Ray and Ray Serve. Each actor supervises one process; requests go to the processes directly.

Serve keeps the wanted number of actors of each service, one application per service, each actor in
a placement group of one bundle. The planner is a named actor, which Ray restarts.
"""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from services.node.on_ray.config import FleetOptions
from services.node.on_ray.fleet_planner import FleetPlanner
from services.node.on_ray.members import Member
from services.node.on_ray.place import (
    Here,
    Service,
    first_counts,
    part_on,
    placement,
    planner_on,
    reached_at,
    reserved,
    stop_limit_s,
)
from services.node.on_ray.state import ServiceState, state_of
from services.node.on_ray.supervised import Supervised, end_actor_with, here
from services.node.processes import Keeper
from services.node.ready import is_alive
from shared.clock import MonotonicClock
from shared.errors import ConfigError, DeadlinePassed, EngineLost

_NAMESPACE: Final = "slos-serve"
_PLANNER: Final = "slos-planner"
_CONNECT_TRIES: Final = 3
_ANSWER_LIMIT_S: Final = 30.0
_LAST_WORDS_S: Final = 2.0
_HEALTH_EVERY_S: Final = 5.0
_HEALTH_LIMIT_S: Final = 60.0
_ALIVE_LIMIT_S: Final = 20.0
_ASK_TARGET_EVERY_S: Final = 1.0
_ASK_EVERY_S: Final = 0.5


def connect(on: str) -> None:
    """Connects to the cluster of `--on`. Raises ConfigError.

    Retries, since Ray starts a server process for each driver and sometimes loses one at its start.
    """
    for tries_left in reversed(range(_CONNECT_TRIES)):
        try:
            ray.init(
                address=None if on == "ray" else on,
                namespace=_NAMESPACE,
                log_to_driver=False,
                logging_level="ERROR",
                ignore_reinit_error=True,
            )
        except ConnectionAbortedError as error:
            if not tries_left:
                raise ConfigError(
                    f"The Ray cluster at {on} could not start a server for this driver ({error}): "
                    "see ray_client_server*.err in the session's logs on its head node."
                ) from error
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"There is no Ray cluster at {on} ({error}): start one with `ray start --head`, "
                "or name one with --on ray://HOST:10001."
            ) from error
        else:
            return


def disconnect() -> None:
    ray.shutdown()


def has_gpus() -> bool:
    return bool(ray.cluster_resources().get("GPU", 0))


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
        name=_PLANNER,
        namespace=_NAMESPACE,
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
            actor = ray.get_actor(_PLANNER, namespace=_NAMESPACE)
            answer = actor.wanted.remote(self._service, present)
            self._wanted = ray.get(answer, timeout=_ANSWER_LIMIT_S)


def application(fleet: FleetOptions, service: Service) -> serve.Application:
    """A service as Serve deploys it, for `slos-serve up` and for RayService."""
    needs, first = reserved(fleet, service), first_counts(fleet)[service]
    limit_s = stop_limit_s(fleet)
    deployment = serve.deployment(Replica).options(
        name=service.value,
        ray_actor_options={
            "num_cpus": needs.cpus,
            "num_gpus": needs.gpus,
            "resources": dict(needs.others),
        },
        autoscaling_config=AutoscalingConfig(
            min_replicas=0 if service is Service.PREFILL else 1,
            initial_replicas=first,
            max_replicas=max(first, fleet.up.most_engines),
            upscale_delay_s=0.0,  # `Targets` has its own delays
            downscale_delay_s=0.0,
            policy=AutoscalingPolicy(
                policy_function=f"{__name__}:{ScalePolicy.__name__}",
                policy_kwargs={"service": service.value},
            ),
        ),
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=limit_s,
        health_check_period_s=_HEALTH_EVERY_S,
        health_check_timeout_s=_HEALTH_LIMIT_S,
        **placement(fleet, service),
    )
    return deployment.bind(fleet, service)


def deploy(fleet: FleetOptions) -> None:
    """Starts every service without waiting for it."""
    _stop_planner(stop_limit_s(fleet))  # one left by an earlier fleet has other options
    serve.start(proxy_location="Disabled")
    serve.run_many(
        [
            serve.RunTarget(
                target=application(fleet, service), name=service.application, route_prefix=None
            )
            for service in Service
        ],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )


def states() -> dict[Service, ServiceState]:
    """The states of deployed services."""
    applications = serve.status().applications
    return {
        service: state_of(applications[service.application], service.value)
        for service in Service
        if service.application in applications
    }


def members() -> Sequence[Member]:
    """The members of the fleet. Raises ConfigError where none runs."""
    return list(_get(_running_planner().members.remote()))


def is_complete() -> bool:
    """Whether all engines have attached to the planner. Raises EngineLost if that has ended."""
    return bool(_get(_running_planner().is_complete.remote()))


def fix(counts: Mapping[Service, int | None]) -> None:
    """Sets how many actors a service is to have; None: as the planner advises."""
    _get(_running_planner().fix.remote({one.value: count for one, count in counts.items()}))


def _get(reference: Any, limit_s: float = _ANSWER_LIMIT_S) -> Any:
    """The answer of an actor. Raises its exception without Ray's traces, or EngineLost."""
    try:
        return ray.get(reference, timeout=limit_s)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise EngineLost(f"The planner's actor does not answer ({error}).") from error


def _running_planner() -> Any:
    try:
        return ray.get_actor(_PLANNER, namespace=_NAMESPACE)
    except ValueError as error:
        raise ConfigError(
            "No slos-serve runs on this Ray cluster: start it with `slos-serve up --on ...`. What "
            "`slos-serve up` started without --on keeps the number of engines that it began with."
        ) from error


def remove(limit_s: float) -> None:
    """Ends gateways, then engines, then the planner, so that requests in flight end first."""
    for services in ((Service.GATEWAY,), (Service.PREFILL, Service.DECODE)):
        _delete(services, limit_s)
    _stop_planner(limit_s)
    if not serve.status().applications:
        serve.shutdown()


def _stop_planner(limit_s: float) -> None:
    with suppress(ConfigError):  # there is none
        actor = _running_planner()
        with suppress(EngineLost):
            _get(actor.stop.remote(), limit_s)
        ray.kill(actor)


def _delete(services: Sequence[Service], limit_s: float) -> None:
    """Ends the services together. Raises DeadlinePassed when some still run after `limit_s`."""
    for service in services:
        serve.delete(service.application, _blocking=False)
    clock = MonotonicClock()
    until_s = clock.now() + limit_s
    while left := [service.value for service in services if service in states()]:
        if clock.now() > until_s:
            raise DeadlinePassed(f"Ray still runs {', '.join(left)} after {limit_s:g} s.")
        time.sleep(_ASK_EVERY_S)
