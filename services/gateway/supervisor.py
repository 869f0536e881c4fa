"""Forks worker processes, replaces those that end by themselves, and ends all when told to.

The supervisor has neither threads nor an event loop, so that it may fork at any time.
"""

import logging
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, NoReturn

from services.gateway.worker_rules import RestartBudget
from shared.clock import Clock
from shared.entry import FAILED
from shared.parent import end_with_parent

_LOG = logging.getLogger(__name__)
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_HANDLED: Final = (*_STOP_SIGNALS, signal.SIGCHLD)

# Runs one worker and returns its exit status; it calls the function once it serves.
Work = Callable[[int, Callable[[], None]], int]


@dataclass(slots=True, kw_only=True)
class _Worker:
    """`pipe` becomes readable once the worker serves; -1 after that was read."""

    number: int
    pid: int
    pipe: int

    @property
    def serves(self) -> bool:
        return self.pipe == -1


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """Keeps `count` workers until SIGTERM or SIGINT, which it passes on as SIGTERM.

    The first worker starts alone: if it cannot serve, its fault is the gateway's, told once.

    Attributes:
        on_ended: Called with the pid of each worker that has ended.
        stop_limit_s: Time to end after SIGTERM, then SIGKILL.
    """

    count: int
    work: Work
    on_ended: Callable[[int], None]
    clock: Clock
    stop_limit_s: float
    budget: RestartBudget
    _workers: dict[int, _Worker] = field(default_factory=dict, init=False)  # by number
    _told: int = field(default=0, init=False)  # stop signals that came
    _passed_on: int = field(default=0, init=False)
    _has_served: bool = field(default=False, init=False)
    _kill_at_s: float | None = field(default=None, init=False)  # None: not stopping
    _status: int = field(default=0, init=False)

    def run(self) -> int:
        """Runs until all workers have ended; the exit status of the gateway."""
        with self._signals() as woken:
            self._start(0)
            while self._workers:
                self._wait(woken)
                self._reap()
                if self._told > self._passed_on:
                    self._passed_on = self._told
                    self._stop()
                if self._kill_at_s is not None and self.clock.now() >= self._kill_at_s:
                    self._signal_all(signal.SIGKILL)
                elif self._kill_at_s is None and self._has_served:
                    self._start_missing()
        return self._status

    def _start_missing(self) -> None:
        for number in range(self.count):
            if number not in self._workers:
                self._start(number)

    def _start(self, number: int) -> None:
        reads, writes = os.pipe()
        os.set_blocking(reads, False)
        supervisor_pid = os.getpid()
        # A signal between the fork and the worker's own handlers would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                os.close(reads)
                self._be_worker(number, writes, supervisor_pid)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        os.close(writes)
        self._workers[number] = _Worker(number=number, pid=pid, pipe=reads)

    def _be_worker(self, number: int, writes: int, supervisor_pid: int) -> NoReturn:
        status = 1
        try:
            end_with_parent(supervisor_pid)
            os.setpgid(0, 0)  # Ctrl-C is for the supervisor, which tells each worker once
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, _end_start)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
            status = self.work(number, lambda: _say_ready(writes))
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        except BaseException:  # noqa: BLE001 - the process ends here, and its log must say why
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _wait(self, woken: socket.socket) -> None:
        """Waits for a signal, a worker that serves now, or the time to kill."""
        wait_s = None if self._kill_at_s is None else max(0.0, self._kill_at_s - self.clock.now())
        pipes = {one.pipe: one for one in self._workers.values() if not one.serves}
        ready, _, _ = select.select([woken.fileno(), *pipes], [], [], wait_s)
        for descriptor in ready:
            if descriptor in pipes:
                self._note_serving(pipes[descriptor])
            else:
                woken.recv(4096)

    def _note_serving(self, worker: _Worker) -> None:
        with suppress(BlockingIOError):  # it has ended, and a child of its own still holds the pipe
            self._has_served |= os.read(worker.pipe, 1) != b""
        os.close(worker.pipe)
        worker.pipe = -1

    def _reap(self) -> None:
        for worker in list(self._workers.values()):
            pid, wait_status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                if not worker.serves:
                    self._note_serving(worker)
                del self._workers[worker.number]
                self.on_ended(pid)
                if self._kill_at_s is None:
                    self._replace(worker, os.waitstatus_to_exitcode(wait_status))

    def _replace(self, worker: _Worker, status: int) -> None:
        """Allows a new worker in its place, or stops all with a failure."""
        how = f"signal {-status}" if status < 0 else f"status {status}"
        if not self._has_served:
            self._status = status if status >= 0 else FAILED
            if status < 0:
                _LOG.error("the first worker ended by %s before it served", how)
        elif self.budget.take(self.clock.now()):
            _LOG.warning("worker %d ended by %s; another takes its place", worker.number, how)
            return
        else:
            self._status = FAILED
            _LOG.error(
                "worker %d ended by %s; %d had to be replaced within %g s, so all are stopped",
                *(worker.number, how, self.budget.restarts, self.budget.window_s),
            )
        self._stop()

    def _stop(self) -> None:
        if self._kill_at_s is None:
            self._kill_at_s = self.clock.now() + self.stop_limit_s
        self._signal_all(signal.SIGTERM)

    def _signal_all(self, number: signal.Signals) -> None:
        for worker in self._workers.values():
            os.kill(worker.pid, number)  # ours until it is reaped, so its pid is its own

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """A socket that becomes readable with each signal."""
        reads, writes = socket.socketpair()
        reads.setblocking(False)
        writes.setblocking(False)
        before = {number: signal.getsignal(number) for number in _HANDLED}
        for number in _HANDLED:
            signal.signal(number, self._count)
        fd_before = signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
        try:
            yield reads
        finally:
            signal.set_wakeup_fd(fd_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            reads.close()
            writes.close()

    def _count(self, number: int, _: object) -> None:
        self._told += number in _STOP_SIGNALS


def _say_ready(pipe: int) -> None:
    os.write(pipe, b"s")
    os.close(pipe)


def _end_start(number: int, frame: object) -> None:
    """Ends a worker on SIGTERM before its event loop handles signals."""
    del number, frame
    raise SystemExit(0)
