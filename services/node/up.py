"""`slos-serve up`: one machine as a whole node, until it is told to stop."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from services.node.config import NodeOptions
from services.node.machine import memory_gib
from services.node.on_ray.config import UpOptions
from services.node.on_ray.up import run_on_ray
from services.node.plan import NodePlan, Part, Rank, Surroundings, plan_node
from services.node.ports import assign_ports
from services.node.processes import Crew, Death, Keeper, tail
from services.node.progress import Progress
from services.node.ready import wait_until_attached, wait_until_ready
from services.node.shares import CpuShare, share_cpu
from shared.clock import Clock, MonotonicClock
from shared.cluster_secret import IDENTITY_VARIABLE, read_secret
from shared.engine.environment import runs_on_cpu
from shared.errors import ConfigError, DeadlinePassed
from shared.models import is_local, resolve_model
from shared.options import load
from shared.ports import LOOPBACK
from shared.telemetry.log_files import cut_back

_CONFIG: Final = "SLOS_CONFIG"
_LOGS_EVERY_S: Final = 60.0
_LOG_LIMIT_BYTES: Final = 64 << 20  # of each part, and as much again set aside
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# What to do with a node that stands: an exit status, or None to go on serving.
Use = Callable[[NodePlan], Coroutine[Any, Any, int | None]]


def main(argv: Sequence[str]) -> int:
    """Serves until Ctrl-C or SIGTERM, and then returns 0. Raises ConfigError."""
    options = load(UpOptions, section="node", argv=argv, environ=os.environ, prog="slos-serve up")
    config = config_file(argv, os.environ)
    if options.on:
        return run_on_ray(options, config=config)
    options = replace(options, host=options.host or LOOPBACK)
    return run_node(options, config=config, use=_announce)


async def _announce(plan: NodePlan) -> None:
    print(f"Serving {plan.model_name} at {plan.url}/v1 (Ctrl-C ends it)", flush=True)


def run_node(
    options: NodeOptions, *, config: str | None, use: Use, console: Console | None = None
) -> int:
    """Starts a node, hands it to `use`, serves on if that says so, and ends every process.

    `config` is the YAML file that all parts read; `console` is where progress is told, by default
    stdout. Raises ConfigError and DeadlinePassed.
    """
    console = console or Console()
    read_secret(options.cluster_secret_file)
    ports = assign_ports(options)  # before the model: that may take a while, a taken port not
    around = survey(options, config, console)
    return asyncio.run(serve(options, plan_node(options, ports, around), use, console))


async def serve(options: NodeOptions, plan: NodePlan, use: Use, console: Console) -> int:
    """As `run_node`, of a plan that is made already."""
    return await _Node(options, plan, console).run(use)


def config_file(argv: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """The YAML file of `--config` or its variable; `load` has checked the words already."""
    words = [part for word in argv for part in word.split("=", 1)]
    if "--config" in words:
        return words[words.index("--config") + 1]
    return environ.get(_CONFIG) or None


def survey(options: NodeOptions, config: str | None, console: Console) -> Surroundings:
    """Reads the machine and makes the model, the slow step of a first start."""
    model = resolve_model(
        options.model, say=lambda line: console.print(line, highlight=False, soft_wrap=True)
    )
    run_dir = Path(options.run_dir).expanduser().resolve()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"Cannot make {run_dir} ({error.strerror}): name another folder with --run-dir."
        ) from error
    return Surroundings(
        model=model,
        model_is_local=is_local(model),
        shares=_cpu_shares(options),
        run_dir=run_dir,
        environ=_environment(config, options.cluster_secret_file),
    )


def _environment(config: str | None, secret_file: str) -> dict[str, str]:
    """What every part finds in its environment: files by their whole path."""
    named = {_CONFIG: config, IDENTITY_VARIABLE: secret_file}
    return {key: str(Path(path).expanduser().resolve()) for key, path in named.items() if path}


def _cpu_shares(options: NodeOptions) -> list[CpuShare]:
    """Empty with a build of vLLM for GPUs."""
    if not runs_on_cpu():
        return []
    cores = sorted(os.sched_getaffinity(0))
    return share_cpu(cores, memory_gib(), options.engines, options.kv_cache_gib)


class _Node:
    """One run of a node, from the first process to the last."""

    def __init__(self, options: NodeOptions, plan: NodePlan, console: Console) -> None:
        self._options = options
        self._plan = plan
        self._console = console
        self._clock: Clock = MonotonicClock()

    async def run(self, use: Use) -> int:
        with Keeper() as keeper:
            crew = Crew(clock=self._clock, keeper=keeper, say=self._say)
            told_to_stop = _stop_on_signals(crew)
            try:
                return await self._serve(crew, told_to_stop, use)
            finally:
                self._say("Stopping: gateway first, then engines, then planner.")
                await self._stop(crew)

    async def _serve(self, crew: Crew, told_to_stop: asyncio.Event, use: Use) -> int:
        for part in self._plan.parts:
            await crew.start(part)
        status = await self._unless_ended(self._until_ready(), crew, told_to_stop)
        if status is None:
            crew.restarts = self._options.restart
            status = await self._unless_ended(use(self._plan), crew, told_to_stop)
        if status is None:
            status = await self._unless_ended(self._bound_logs(), crew, told_to_stop)
        return status or 0

    async def _unless_ended(
        self, work: Coroutine[Any, Any, int | None], crew: Crew, told_to_stop: asyncio.Event
    ) -> int | None:
        """What `work` gives, unless a part dies for good (1) or we are told to stop (0) first."""
        working = asyncio.create_task(work)
        dying, told = asyncio.create_task(crew.death()), asyncio.create_task(told_to_stop.wait())
        tasks = (working, dying, told)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                return 0
            return self._tell_death(dying.result()) if dying.done() else working.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_ready(self) -> None:
        names = [part.name for part in self._plan.parts]
        self._say(f"Starting {', '.join(names)} (logs: {self._plan.parts[0].log.parent})")
        limit_s = self._options.start_limit_s
        with Progress.of(self._console, names) as progress:
            try:
                async with asyncio.timeout(limit_s):
                    await self._all_ready(progress)
            except TimeoutError as error:
                late = ", ".join(progress.awaited) or "some engine's attachment to the planner"
                raise DeadlinePassed(
                    f"Not ready after {limit_s:g} s: {late}. "
                    "See the logs, or give more time with --start-limit-s."
                ) from error

    async def _all_ready(self, progress: Progress) -> None:
        async def one(part: Part) -> None:
            progress.ready(part.name, await wait_until_ready(part, self._clock))

        ticker = asyncio.create_task(self._tick(progress))
        try:
            async with asyncio.TaskGroup() as group:
                for part in self._plan.parts:
                    group.create_task(one(part))
            await wait_until_attached(self._plan, self._clock)
        finally:
            ticker.cancel()

    async def _tick(self, progress: Progress) -> None:
        started_at_s = self._clock.now()
        while True:
            await asyncio.sleep(1.0)
            progress.tick(self._clock.now() - started_at_s)

    async def _bound_logs(self) -> None:
        """For ever."""
        while True:
            await self._clock.sleep(_LOGS_EVERY_S)
            for part in self._plan.parts:
                await asyncio.to_thread(cut_back, part.log, _LOG_LIMIT_BYTES)

    async def _stop(self, crew: Crew) -> None:
        for rank in Rank:
            await crew.stop(part.name for part in self._plan.parts if part.rank is rank)

    def _tell_death(self, death: Death) -> int:
        self._say(f"{death}. The end of its log ({death.log}):")
        self._say(tail(death.log))
        return 1

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _stop_on_signals(crew: Crew) -> asyncio.Event:
    """Set by the first signal; the second one ends everything at once."""
    told = asyncio.Event()

    def stop() -> None:
        if told.is_set():
            crew.kill()
        told.set()

    for number in _STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return told
