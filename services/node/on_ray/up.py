"""`slos-serve up --on ...`: runs a fleet on a Ray cluster until it is told to stop."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from services.node.on_ray.config import FleetOptions, UpOptions
from services.node.on_ray.members import Member
from services.node.on_ray.place import Service, first_counts, passed_on, stop_limit_s
from services.node.on_ray.state import ServiceState
from shared.clock import Clock, MonotonicClock
from shared.cluster_secret import new_secret, read_secret
from shared.errors import ConfigError, DeadlinePassed, EngineLost

_ASK_EVERY_S: Final = 0.5
_REMIND_EVERY_S: Final = 15.0
_REMOVE_MARGIN_S: Final = 30.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FAILED: Final = "DEPLOY_FAILED"  # an UNHEALTHY application may recover


def require_ray() -> None:
    """Raises ConfigError where Ray is not installed."""
    if find_spec("ray") is None:
        raise ConfigError("Ray is not installed here: pip install 'slos-serve[ray]'.")


def run_on_ray(options: UpOptions, *, config: str | None) -> int:
    """Serves until a signal, then drains and ends the fleet. With `detach` the fleet stays.

    Raises ConfigError, EngineLost and DeadlinePassed.
    """
    require_ray()
    from services.node.on_ray import ray_cluster as cluster

    cluster.connect(options.on)
    try:
        if cluster.states():
            raise ConfigError(
                "slos-serve runs on this Ray cluster already: change it with `slos-serve scale`, "
                "or end it with `slos-serve down`."
            )
        fleet = fleet_options(options, config, os.environ, gpus=cluster.has_gpus())
        with _told_to_stop() as stop:  # after Ray has set its own handlers
            return _serve(fleet, stop)
    finally:
        cluster.disconnect()


def fleet_options(
    options: UpOptions, config: str | None, environ: Mapping[str, str], *, gpus: bool
) -> FleetOptions:
    """What the nodes get; `gpus` says whether the cluster has any. Raises ConfigError."""
    here = gpus or options.gpus_per_engine
    return FleetOptions(
        up=options,
        config=Path(config).read_text() if config else "",
        secret=_secret(options),
        environ=passed_on(environ),
        gpus_per_engine=options.gpus_of_an_engine if here else 0,
    )


def _secret(options: UpOptions) -> str:
    """The operator's secret, else a new one for this fleet; empty with `--insecure`."""
    own = read_secret(options.cluster_secret_file)
    if own is not None:
        return own.value.decode()
    return "" if options.insecure else new_secret()


def _serve(fleet: FleetOptions, stop: threading.Event) -> int:
    from services.node.on_ray import ray_cluster as cluster

    stays = False
    try:
        cluster.deploy(fleet)
        _say("Starting planner, engines and gateway on Ray.")
        if not _until_serving(fleet, stop, MonotonicClock()):
            return 0
        members = cluster.members()
        for line in member_lines(members):
            _say(line)
        stays = fleet.up.detach
        ends = "`slos-serve down` ends it" if stays else "Ctrl-C ends it"
        _say(f"Serving {fleet.up.api_model_name} at {' '.join(urls(members))} ({ends})")
        if not stays:
            stop.wait()
        return 0
    finally:
        if not stays:
            _say("Stopping: gateways first, then engines, then planner.")
            cluster.remove(stop_limit_s(fleet) + _REMOVE_MARGIN_S)


def _until_serving(fleet: FleetOptions, stop: threading.Event, clock: Clock) -> bool:
    """Waits until all serve; False when a signal comes first. Raises EngineLost, DeadlinePassed."""
    from services.node.on_ray import ray_cluster as cluster

    began_s = reminded_s = clock.now()
    first = first_counts(fleet)
    while not stop.wait(_ASK_EVERY_S):
        states = cluster.states()
        raise_if_failed(states)
        awaited = missing(states, first)
        if not awaited and cluster.is_complete():
            return True
        now = clock.now()
        if now - began_s > fleet.up.start_limit_s:
            raise DeadlinePassed(
                f"Not ready after {fleet.up.start_limit_s:g} s: {awaited or 'engines to attach'}. "
                "Ray may have no room for them (`ray status`); more time: --start-limit-s."
            )
        if now - reminded_s > _REMIND_EVERY_S:
            reminded_s = now
            _say(f"  waiting for {awaited or 'the engines to attach'} ({now - began_s:.0f} s)")
    return False


def raise_if_failed(states: Mapping[Service, ServiceState]) -> None:
    for service, state in states.items():
        if state.status == _FAILED:
            raise EngineLost(f"Ray could not start {service} ({state.status}): {state.message}")


def missing(states: Mapping[Service, ServiceState], wanted: Mapping[Service, int]) -> str:
    """The actors that are missing or still to end, in words; empty when the numbers are right."""
    lacking = {
        service: count - (states[service].running if service in states else 0)
        for service, count in wanted.items()
    }
    words = [f"{count} {service}" for service, count in lacking.items() if count > 0]
    words += [f"{-count} {service} to end" for service, count in lacking.items() if count < 0]
    stopping = [
        f"{state.others} {service} to end"
        for service, state in states.items()
        if lacking.get(service) == 0 and state.others
    ]
    return ", ".join(words + stopping)


def member_lines(members: Iterable[Member]) -> list[str]:
    return [f"  {one.name:<18} {one.address:<28} on Ray node {one.node[:12]}" for one in members]


def urls(members: Sequence[Member]) -> list[str]:
    """The URLs of the API, one for each gateway."""
    return [f"{one.address}/v1" for one in members if one.service is Service.GATEWAY]


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Yields an event that the first signal sets; the second one raises KeyboardInterrupt."""
    stop = threading.Event()

    def stop_or_break(number: int, frame: object) -> None:
        del number, frame
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, stop_or_break) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    print(line, flush=True)
