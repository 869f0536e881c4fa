"""Assembles the planner and runs it until it is told to stop."""

import asyncio
import logging
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.planner.config import PlannerOptions
from services.planner.server.decisions_log import DecisionsLog
from services.planner.server.follow_demand import follow_demand
from services.planner.server.metrics import PlannerMetrics, serve_metrics
from services.planner.server.prepare import is_prepared, prepare
from services.planner.server.service import PlannerService
from services.planner.state.cluster import ClusterState
from shared.clock import Clock, MonotonicClock
from shared.errors import ConfigError
from shared.rpc.channels import listen
from shared.rpc.health_port import health_port
from shared.rpc.identity import identity_from
from shared.rpc.slos_pb2_grpc import add_PlannerServicer_to_server
from shared.telemetry.task_count import count_tasks

_LOG = logging.getLogger(__name__)
_TIDY_EVERY_S = 1.0
_MIB = 1 << 20


async def run(options: PlannerOptions) -> int:
    """Serves until SIGTERM or SIGINT. Raises ConfigError when a port is taken."""
    stop = asyncio.Event()
    signal.signal(signal.SIGTERM, _end_start)

    def on_ready(port: int) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        _LOG.info("planner listens on %s:%s", options.host, port)

    metrics = PlannerMetrics()
    count_tasks(metrics.registry)
    with serve_metrics(metrics, options.host, options.metrics_port) as metrics_port:
        await serve(options, metrics, stop, on_ready)
        _LOG.info("stopped (metrics were on port %s)", metrics_port)
    return 0


def _end_start(number: int, frame: object) -> None:
    """Ends the process during start-up: compiling may take minutes, in which the event loop handles
    no signal. An exception could be lost where the compiler calls back into Python.
    """
    del number, frame
    logging.shutdown()
    os._exit(0)


async def serve(
    options: PlannerOptions,
    metrics: PlannerMetrics,
    stop: asyncio.Event,
    on_ready: Callable[[int], None],
) -> None:
    """Serves until `stop` is set, then ends every call within `shutdown_limit_s`."""
    clock = MonotonicClock()
    log = _decisions_log(options)
    state = ClusterState(options.numbers, epoch=secrets.token_hex(3), now=clock.now())
    service = PlannerService(
        state,
        metrics,
        clock,
        registration_limit_s=options.registration_limit_s,
        scaling=options.scaling,
    )
    server, port = _listening(options)
    add_PlannerServicer_to_server(service, server)
    healthy = health.aio.HealthServicer()  # type: ignore[attr-defined] # unknown to the stubs
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    with _compiling_logged(clock):
        prepare()
    await server.start()
    await healthy.set("slos.v1.Planner", health_pb2.HealthCheckResponse.SERVING)
    on_ready(port)
    beside = [
        asyncio.create_task(_tidy(service, metrics, clock, log)),
        asyncio.create_task(service.waiting.run()),
        asyncio.create_task(service.listen()),
        asyncio.create_task(follow_demand(service, metrics, clock, options.scale_every_s)),
    ]
    try:
        async with health_port(healthy, options.host, options.health_port):
            await stop.wait()
            await healthy.enter_graceful_shutdown()
    finally:
        for task in beside:
            task.cancel()
        service.close()
        await server.stop(options.shutdown_limit_s)
        if log is not None:
            await asyncio.gather(*beside, return_exceptions=True)
            log.put(service.core.ledger.all_that_is_left())
            await log.write()


@contextmanager
def _compiling_logged(clock: Clock) -> Iterator[None]:
    """Logs the start and the end of a compilation, which takes minutes on two busy cores."""
    if is_prepared():
        yield
        return
    began_s = clock.now()
    _LOG.info("compiling the code of decisions, once per version; this may take minutes")
    yield
    _LOG.info("compiled it in %.0f s", clock.now() - began_s)


def _decisions_log(options: PlannerOptions) -> DecisionsLog | None:
    if not options.decisions_log:
        return None
    path = Path(options.decisions_log).expanduser()
    return DecisionsLog.open(path, int(options.decisions_log_mib * _MIB))


def _listening(options: PlannerOptions) -> tuple[grpc.aio.Server, int]:
    identity = identity_from(options.cluster_secret_file)
    try:
        return listen(options.host, options.port, identity)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {options.host}:{options.port}: "
            "end what holds the port, or choose another with --port"
        ) from error


async def _tidy(
    service: PlannerService, metrics: PlannerMetrics, clock: Clock, log: DecisionsLog | None
) -> None:
    while True:
        await clock.sleep(_TIDY_EVERY_S)
        ended = service.core.tidy(clock.now())
        metrics.shown(service.state)
        if log is not None:
            log.put(ended)
            await log.write()
