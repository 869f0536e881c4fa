"""A fleet on a Ray cluster: starts, inspects, scales and removes it.

Serve keeps the wanted number of actors of each service, one application per service, each actor in
a placement group of one bundle.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from services.node.on_ray.config import FleetOptions
from services.node.on_ray.members import Member
from services.node.on_ray.place import Service, first_counts, placement, reserved, stop_limit_s
from services.node.on_ray.ray_actors import (
    ANSWER_LIMIT_S,
    NAMESPACE,
    PLANNER,
    Replica,
    ScalePolicy,
)
from services.node.on_ray.state import ServiceState, state_of
from shared.clock import MonotonicClock
from shared.errors import ConfigError, DeadlinePassed, EngineLost

_CONNECT_TRIES: Final = 3
_HEALTH_EVERY_S: Final = 5.0
_HEALTH_LIMIT_S: Final = 60.0
_ASK_EVERY_S: Final = 0.5


def connect(on: str) -> None:
    """Connects to the cluster of `--on`. Raises ConfigError.

    Retries, since Ray starts a server process for each driver and sometimes loses one at its start.
    """
    for tries_left in reversed(range(_CONNECT_TRIES)):
        try:
            ray.init(
                address=None if on == "ray" else on,
                namespace=NAMESPACE,
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
                policy_function=f"{ScalePolicy.__module__}:{ScalePolicy.__name__}",
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


def _get(reference: Any, limit_s: float = ANSWER_LIMIT_S) -> Any:
    """The answer of an actor. Raises its exception without Ray's traces, or EngineLost."""
    try:
        return ray.get(reference, timeout=limit_s)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise EngineLost(f"The planner's actor does not answer ({error}).") from error


def _running_planner() -> Any:
    try:
        return ray.get_actor(PLANNER, namespace=NAMESPACE)
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
