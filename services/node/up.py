"""`slos-serve up`: runs all parts on one machine until it is told to stop."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

from rich.console import Console

from services.node.config import NodeOptions
from services.node.on_ray.config import UpOptions
from services.node.on_ray.up import run_on_ray
from services.node.part_options import check_part_options
from services.node.plan import NodePlan, Part, Rank, plan_node
from services.node.ports import Claims, assign_ports
from services.node.processes import Death, Keeper, Processes, tail
from services.node.progress import Progress
from services.node.ready import wait_until_attached, wait_until_ready
from services.node.signs import Patience, sign_of
from services.node.survey import CONFIG_VARIABLE, run_dir_of, survey, unsurveyed
from shared.clock import Clock, MonotonicClock
from shared.cluster_secret import read_secret
from shared.options import load
from shared.ports import LOOPBACK
from shared.telemetry.log_files import cut_back

_LOGS_EVERY_S: Final = 60.0
_LOG_LIMIT_BYTES: Final = 64 << 20  # of each part, and as much again set aside
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Uses a node that is ready; returns an exit status, or None to go on serving.
Use = Callable[[NodePlan], Coroutine[Any, Any, int | None]]


def main(argv: Sequence[str]) -> int:
    """Serves until Ctrl-C or SIGTERM, then returns 0. Raises ConfigError."""
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
    """Starts a node, calls `use`, keeps serving if that returns None, and ends every process.

    `config` is the YAML file that all parts read; progress goes to `console`, by default stdout.
    Raises ConfigError and DeadlinePassed.
    """
    console = console or Console()
    read_secret(options.cluster_secret_file)
    ports = assign_ports(options)  # first, since making the model may take a while
    with closing(Claims()) as claims:
        claims.ports(ports, options)
        claims.run_dir(run_dir_of(options))
        check_part_options(plan_node(options, ports, unsurveyed(options, config)).parts)
        around = survey(options, config, console)
        return asyncio.run(serve(options, plan_node(options, ports, around), use, console))


async def serve(options: NodeOptions, plan: NodePlan, use: Use, console: Console) -> int:
    """As `run_node`, with a given plan."""
    return await _Node(options, plan, console).run(use)


def config_file(argv: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """The YAML file of `--config` or its variable; `load` checks the arguments."""
    words = [part for word in argv for part in word.split("=", 1)]
    if "--config" in words:
        return words[words.index("--config") + 1]
    return environ.get(CONFIG_VARIABLE) or None


class _Node:
    """One run of a node, from the first process to the last."""

    def __init__(self, options: NodeOptions, plan: NodePlan, console: Console) -> None:
        self._options = options
        self._plan = plan
        self._console = console
        self._clock: Clock = MonotonicClock()

    async def run(self, use: Use) -> int:
        with Keeper() as keeper:
            processes = Processes(
                clock=self._clock,
                keeper=keeper,
                say=self._say,
                restarts=self._options.restart,
            )
            told_to_stop = _stop_on_signals(processes)
            try:
                return await self._serve(processes, told_to_stop, use)
            finally:
                self._say("Stopping: gateway first, then engines, then planner.")
                await self._stop(processes)

    async def _serve(self, processes: Processes, told_to_stop: asyncio.Event, use: Use) -> int:
        for part in self._plan.parts:
            if not part.after:
                await processes.start(part)
        status = await self._unless_ended(self._until_ready(processes), processes, told_to_stop)
        if status is None:
            status = await self._unless_ended(use(self._plan), processes, told_to_stop)
        if status is None:
            status = await self._unless_ended(self._bound_logs(), processes, told_to_stop)
        return status or 0

    async def _unless_ended(
        self,
        work: Coroutine[Any, Any, int | None],
        processes: Processes,
        told_to_stop: asyncio.Event,
    ) -> int | None:
        """The result of `work`, unless a part dies for good (1) or a signal stops the node (0)."""
        working = asyncio.create_task(work)
        dying, told = (
            asyncio.create_task(processes.death()),
            asyncio.create_task(told_to_stop.wait()),
        )
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

    async def _until_ready(self, processes: Processes) -> None:
        """Waits for all parts. Raises DeadlinePassed when none makes progress for too long."""
        names = [part.name for part in self._plan.parts]
        self._say(f"Starting {', '.join(names)} (logs: {self._plan.parts[0].log.parent})")
        with Progress.of(self._console, names) as progress:
            ready = asyncio.create_task(self._all_ready(processes, progress))
            ticker = asyncio.create_task(self._tick(processes, progress))
            try:
                done, _ = await asyncio.wait([ready, ticker], return_when=asyncio.FIRST_COMPLETED)
                done.pop().result()
            finally:
                for task in (ready, ticker):
                    task.cancel()
                await asyncio.gather(ready, ticker, return_exceptions=True)

    async def _all_ready(self, processes: Processes, progress: Progress) -> None:
        stands = {part.name: asyncio.Event() for part in self._plan.parts}

        async def one(part: Part) -> None:
            if part.after:
                await stands[part.after].wait()
                await processes.start(part)
            progress.ready(part.name, await wait_until_ready(part, self._clock))
            processes.stands(part.name)
            stands[part.name].set()

        async with asyncio.TaskGroup() as group:
            for part in self._plan.parts:
                group.create_task(one(part))
        await wait_until_attached(self._plan, self._clock)

    async def _tick(self, processes: Processes, progress: Progress) -> None:
        started_at_s = self._clock.now()
        patience = Patience(self._options.start_limit_s)
        logs = {part.name: part.log for part in self._plan.parts}
        while True:
            await asyncio.sleep(1.0)
            progress.tick(self._clock.now() - started_at_s)
            signs = {name: sign_of(logs[name], processes.pid_of(name)) for name in progress.awaited}
            patience.observe(signs, self._clock.now())

    async def _bound_logs(self) -> None:
        """Cuts back large logs until cancelled."""
        while True:
            await self._clock.sleep(_LOGS_EVERY_S)
            for part in self._plan.parts:
                await asyncio.to_thread(cut_back, part.log, _LOG_LIMIT_BYTES)

    async def _stop(self, processes: Processes) -> None:
        for rank in Rank:
            await processes.stop(part.name for part in self._plan.parts if part.rank is rank)

    def _tell_death(self, death: Death) -> int:
        self._say(f"{death}. The end of its log ({death.log}):")
        self._say(tail(death.log))
        return 1

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _stop_on_signals(processes: Processes) -> asyncio.Event:
    """An event that the first signal sets; the second one kills all processes at once."""
    told = asyncio.Event()

    def stop() -> None:
        if told.is_set():
            processes.kill()
        told.set()

    for number in _STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return told
