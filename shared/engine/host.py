"""One engine host process: wires engine core, services, planner and metrics, and ends them in
order. The role is a word to it.
"""

import asyncio
import logging
import signal
import tempfile
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY, start_http_server

from shared.clock import Clock, MonotonicClock
from shared.engine.config import EngineOptions, hold_port, port_taken
from shared.engine.core_use import CoreUse
from shared.engine.environment import free_threads
from shared.engine.link import HostEnd
from shared.engine.profile import Profile, Profiler
from shared.engine.progress import Progress
from shared.engine.registration import Registration
from shared.engine.service import EngineService
from shared.engine.state import EngineState
from shared.engine.vllm_core import EngineCore
from shared.engine.vllm_stats import EngineStats
from shared.engines import Role
from shared.entry import end_at_once
from shared.errors import ConfigError, EngineLost, EngineReplaced, EngineStalled
from shared.kv_transfer.curve import keys_from
from shared.kv_transfer.release import LeaseReleaser
from shared.models import resolve_model
from shared.rpc.channels import PlannerClient, listen
from shared.rpc.health_port import health_port
from shared.rpc.identity import Identity, identity_from
from shared.rpc.slos_pb2_grpc import add_EngineServicer_to_server
from shared.telemetry.engine_metrics import EngineMetrics
from shared.telemetry.task_count import count_tasks
from shared.ticks import TICK_S

Result = TypeVar("Result")
_LOG = logging.getLogger(__name__)
_SERVER_GRACE_S = 0.5
_CORE_GRACE_S = 2.0
_SERVICE_NAME = "slos.v1.Engine"
_UNKNOWN_STEP_S = 8.0  # the longest step of an engine without a profile


def run(role: Role, options: EngineOptions, cores: frozenset[int]) -> NoReturn:
    """Serves until SIGTERM or SIGINT (status 0) or until the engine core dies (1), and ends.

    `cores` are those of the host itself; the engine core has its own.
    """
    # While vLLM starts, nothing of ours could answer a signal: let it end the start.
    signal.signal(signal.SIGTERM, _end_start)
    with tempfile.TemporaryDirectory(prefix="slos-", dir=options.run_dir or None) as folder:
        status: int = uvloop.run(_serve(role, options, cores, Path(folder)))
    end_at_once(status)


def _end_start(number: int, frame: object) -> None:
    del number, frame
    raise SystemExit(0)


async def _serve(role: Role, options: EngineOptions, cores: frozenset[int], folder: Path) -> int:
    identity = identity_from(options.cluster_secret_file)
    async with AsyncExitStack() as stack:
        link = HostEnd.bind(folder / "link")
        stack.callback(link.close)
        stack.enter_context(hold_port(options.host, options.port))
        model_path = str(resolve_model(options.model))
        # Before gRPC starts its threads: the engine core may be a fork of this process.
        core = EngineCore.start(
            options, role=role, link=f"ipc://{folder / 'link'}", model_path=model_path
        )
        stack.push_async_callback(asyncio.to_thread, core.shut_down, _CORE_GRACE_S)
        core.kv = await link.layout()
        free_threads(cores)
        profiler = Profiler(
            core=core, link=link, clock=MonotonicClock(), options=options, model_path=model_path
        )
        try:
            profile = await _unless_stopped(profiler.profile())
        except asyncio.CancelledError:
            return 0
        server = _bound_server(options, identity)
        host = _wire(role, options, core, link, profile, identity)
        await host.start(server)
        await stack.enter_async_context(health_port(host.health, options.host, options.health_port))
        stack.push_async_callback(host.stop, server)
        return await host.until_done()


async def _unless_stopped(work: Coroutine[Any, Any, Result]) -> Result:
    """Raises CancelledError when a signal came first."""
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGTERM, _end_start)


def _bound_server(options: EngineOptions, identity: Identity | None) -> grpc.aio.Server:
    try:
        server, _ = listen(options.host, options.port, identity)
    except OSError as error:
        raise port_taken(options.host, options.port) from error
    return server


def _wire(
    role: Role,
    options: EngineOptions,
    core: EngineCore,
    link: HostEnd,
    profile: Profile | None,
    identity: Identity | None,
) -> "Host":
    clock = MonotonicClock()
    address = f"{options.advertise_host or options.host}:{options.port}"
    name = options.name or f"{role.value}-{address}"
    description = core.describe(options, role=role, name=name, address=address)
    if profile is not None:
        description = replace(description, step_time=profile.table.to_bytes())
    state = EngineState(description)
    client = PlannerClient(options.planner, identity)
    releaser = LeaseReleaser(
        host=options.kv_listen_host,
        port=options.kv_port,
        workers=core.workers if options.kv_carriers else 0,
        epoch=core.engine_id,
        keys=keys_from(options.cluster_secret_file),
    )
    progress = Progress(longest_s=_longest_step_s(core, profile), limit_s=options.stall_limit_s)
    link.on_sign = progress.heard
    registration = Registration(
        client=client,
        state=state,
        clock=clock,
        on_policy=link.send_policy,
        report_every_s=options.report_every_s,
        overdue_s=lambda: progress.overdue_s,
    )

    return Host(
        options=options,
        clock=clock,
        state=state,
        link=link,
        progress=progress,
        core_use=CoreUse(pids=core.pids, computes=core.on_cpu),
        client=client,
        registration=registration,
        service=EngineService(
            core,
            EngineStats(core.config),
            state,
            clock,
            registration.set_draining,
            releaser.release,
        ),
        releaser=releaser,
        metrics=EngineMetrics(REGISTRY, state.description),
        health=health.aio.HealthServicer(),  # type: ignore[attr-defined] # unknown to the stubs
    )


def _longest_step_s(core: EngineCore, profile: Profile | None) -> float:
    """What a step full of one prompt takes, as measured before it served."""
    if profile is None:
        return _UNKNOWN_STEP_S
    most = int(core.config.scheduler_config.max_num_batched_tokens)
    return profile.table.prompt_s(most, most)


@dataclass(slots=True)
class Host:
    """The running parts of one engine host."""

    options: EngineOptions
    clock: Clock
    state: EngineState
    link: HostEnd
    progress: Progress
    core_use: CoreUse
    client: PlannerClient
    registration: Registration
    service: EngineService
    releaser: LeaseReleaser
    metrics: EngineMetrics
    health: Any  # grpc_health's asynchronous servicer

    async def start(self, server: grpc.aio.Server) -> None:
        self.metrics.reads_attached(lambda: self.state.attached)
        self.metrics.reads_cached(lambda: self.state.cached_tokens)
        count_tasks(REGISTRY)
        add_EngineServicer_to_server(self.service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        await server.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        if self.options.metrics_port:
            self._serve_metrics()
        _LOG.info("%s serves at %s", self.state.description.name, self.state.description.address)

    def _serve_metrics(self) -> None:
        try:
            start_http_server(self.options.metrics_port, addr=self.options.metrics_host)
        except OSError as error:
            raise ConfigError(
                f"Port {self.options.metrics_port} is taken; "
                "give the metrics page another with --metrics-port."
            ) from error

    async def _set_health(self, status: int) -> None:
        for service in ("", _SERVICE_NAME):
            await self.health.set(service, status)

    async def until_done(self) -> int:
        """Runs all loops. 0 after a signal and a drain, 1 when the engine core died or hangs, or
        another engine has taken over the name.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        stopping = asyncio.create_task(stop.wait())
        works = self.service.pump(), self._take_reports(), self._watch(), self.registration.keep()
        loops = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait([stopping, *loops], return_when=asyncio.FIRST_COMPLETED)
            if stopping in done:
                await self._drain()
                return 0
            return self._verdict(done - {stopping})
        finally:
            await _end([stopping, *loops])

    async def _drain(self) -> None:
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        left_over = await self.service.end(self.options.drain_limit_s)
        if left_over:
            _LOG.warning(
                "%d requests did not end in %g s and are cut", left_over, self.options.drain_limit_s
            )

    def _verdict(self, ended: Iterable["asyncio.Task[Any]"]) -> int:
        for task in ended:
            error = task.exception()
            if isinstance(error, EngineLost | EngineReplaced):
                _LOG.error("%s This host ends; start it again.", error)
                return 1
            if error is not None:
                raise error
        return 1

    async def _take_reports(self) -> None:
        while True:
            for report in await self.link.next_reports():
                self.progress.stepped(report)
                self.state.take(report)
                self.metrics.observe(report)

    async def _watch(self) -> None:
        """Raises EngineStalled when the core makes no progress with what it holds."""
        while True:
            await self.clock.sleep(TICK_S)
            held = len(self.service.streams.open) or self.state.running + self.state.waiting
            self.progress.tick(holds_work=held > 0, busy=self.core_use.is_busy())
            if self.progress.stalled:
                error = EngineStalled(
                    f"The engine core made no progress for {self.progress.silent_s:.1f} s while it "
                    f"held {held} requests."
                )
                self.service.fail(error)
                raise error

    async def stop(self, server: grpc.aio.Server) -> None:
        self.service.streams.end()
        await server.stop(_SERVER_GRACE_S)
        await self.client.close()
        self.releaser.close()


async def _end(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, Exception):
            await task
