"""Starts, watches, restarts and ends the processes of a node, with all their children."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from services.node.plan import Part
from shared.clock import Clock
from shared.telemetry.log_files import append_to

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
_LONGEST_BACK_OFF_S: Final = 30.0
_HEALTHY_AFTER_S: Final = 60.0  # a part that ran for this long restarts with the first back-off
_KILL_LIMIT_S: Final = 5.0
_TAIL_BYTES: Final = 8192

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """The unexpected end of a part."""

    name: str
    status: int  # negative: the signal that killed it
    log: Path

    def __str__(self) -> str:
        if self.status < 0:
            return f"{self.name} was killed by signal {-self.status}"
        return f"{self.name} ended with status {self.status}"


class Keeper:
    """The keeper process (see services.node.keeper), as a context manager."""

    def __enter__(self) -> "Keeper":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.node.keeper"],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # it must survive a kill of this process group
        )
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self._process.communicate(timeout=5.0)

    def add(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it was killed: pdeathsig alone still ends the parts
            self._process.stdin.write(line)
            self._process.stdin.flush()


@dataclass(slots=True)
class _Running:
    """A part, its present process and the task that watches it."""

    part: Part
    process: Process
    started_at_s: float
    back_off_s: float
    stood: bool = False
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    watcher: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Processes:
    """All processes of a node.

    With `restarts`, a part that was ready once is started again when it dies, also while others
    still start. A part that never was ready would most likely fail in the same way again.
    """

    clock: Clock
    keeper: Keeper
    say: Say
    restarts: bool = False
    first_back_off_s: float = 1.0
    _running: dict[str, _Running] = field(default_factory=dict)
    _death: "asyncio.Future[Death]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    async def start(self, part: Part) -> None:
        part.log.parent.mkdir(parents=True, exist_ok=True)
        part.log.unlink(missing_ok=True)
        running = _Running(part, await self._spawn(part), self.clock.now(), self.first_back_off_s)
        self._running[part.name] = running
        running.watcher = asyncio.create_task(self._watch(running), name=f"watch {part.name}")

    def stands(self, name: str) -> None:
        """Notes that the part was ready."""
        self._running[name].stood = True

    def pid_of(self, name: str) -> int | None:
        """The pid of the part's present process; None before its start."""
        return self._running[name].process.pid if name in self._running else None

    async def death(self) -> Death:
        """The first part that died and was not started again."""
        return await asyncio.shield(self._death)

    async def stop(self, names: Iterable[str]) -> None:
        """Sends SIGTERM to each part, and SIGKILL to its group after its limit. Idempotent."""
        await asyncio.gather(*(self._stop(self._running[n]) for n in names if n in self._running))

    def kill(self) -> None:
        """Ends everything at once."""
        for running in self._running.values():
            running.stopping.set()
            _kill_group(running.process.pid)

    async def _spawn(self, part: Part) -> Process:
        with append_to(part.log) as log:
            process = await asyncio.create_subprocess_exec(
                *part.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **part.environ},
                start_new_session=True,  # a group of its own, without the terminal's Ctrl-C
                preexec_fn=partial(_begin, part.nice, part.cores),  # safe: there is one thread
            )
        self.keeper.add(process.pid)
        return process

    async def _watch(self, running: _Running) -> None:
        while True:
            status = await running.process.wait()
            self._clear(running.process.pid)
            if running.stopping.is_set():
                return
            death = Death(name=running.part.name, status=status, log=running.part.log)
            if not (self.restarts and running.stood):
                if not self._death.done():
                    self._death.set_result(death)
                return
            await self._start_again(running, death)

    async def _start_again(self, running: _Running, death: Death) -> None:
        if self.clock.now() - running.started_at_s > _HEALTHY_AFTER_S:
            running.back_off_s = self.first_back_off_s
        self.say(f"{death}; starting it again in {running.back_off_s:g} s (log: {death.log})")
        with suppress(TimeoutError):
            await asyncio.wait_for(running.stopping.wait(), running.back_off_s)
            return
        running.back_off_s = min(2 * running.back_off_s, _LONGEST_BACK_OFF_S)
        running.started_at_s = self.clock.now()
        with suppress(OSError):  # out of memory or files: the next round tries again
            running.process = await self._spawn(running.part)
        if running.stopping.is_set():
            _terminate(running.process)

    async def _stop(self, running: _Running) -> None:
        assert running.watcher is not None
        running.stopping.set()
        _terminate(running.process)
        done, _ = await asyncio.wait([running.watcher], timeout=running.part.stop_limit_s)
        if not done:
            self.say(f"{running.part.name} did not end in {running.part.stop_limit_s:g} s: killed")
            _kill_group(running.process.pid)
            await asyncio.wait([running.watcher], timeout=_KILL_LIMIT_S)

    def _clear(self, group: int) -> None:
        """Kills what a part left behind."""
        _kill_group(group)
        self.keeper.remove(group)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"(no log: {error.strerror})"
    return "\n".join(text.splitlines()[-lines:])


def _terminate(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _begin(nice: int, cores: tuple[int, ...]) -> None:
    """Runs in the child before exec: sets nice and cores, and lets the kernel kill the child when
    its parent dies.

    Children inherit the cores. Memory comes from the NUMA node of the core that first writes to it.
    """
    os.nice(nice)
    allowed = os.sched_getaffinity(0).intersection(cores)
    if allowed:
        os.sched_setaffinity(0, allowed)
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
