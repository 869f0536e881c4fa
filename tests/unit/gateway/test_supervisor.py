"""Real processes that are forked, killed and told to stop; none of them serves anything."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from services.gateway.supervisor import Supervisor
from services.gateway.worker_rules import RestartBudget
from shared.clock import MonotonicClock

FORK = multiprocessing.get_context("fork")
LIMIT_S = 30.0
Life = Callable[[int, Callable[[], None]], int]


def until_told(_: int, serves: Callable[[], None]) -> int:
    """Serves until SIGTERM, then ends well."""
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    serves()
    while not told:
        time.sleep(0.01)
    return 0


@dataclass
class Running:
    """A supervisor in a process of its own. `events` has ("start" | "end", number, pid)."""

    process: multiprocessing.process.BaseProcess
    events: Connection

    def next(self, kind: str) -> tuple[int, int]:
        assert self.events.poll(LIMIT_S), f"no {kind} came"
        seen, number, pid = self.events.recv()
        assert seen == kind
        return number, pid

    def status(self) -> int | None:
        self.process.join(LIMIT_S)
        return self.process.exitcode


@contextmanager
def supervised(
    life: Life, *, count: int = 2, restarts: int = 5, stop_limit_s: float = LIMIT_S
) -> Iterator[Running]:
    ours, theirs = FORK.Pipe(duplex=False)

    def work(number: int, serves: Callable[[], None]) -> int:
        theirs.send(("start", number, os.getpid()))
        return life(number, serves)

    def supervise() -> None:
        sys.exit(
            Supervisor(
                count=count,
                work=work,
                on_ended=lambda pid: theirs.send(("end", -1, pid)),
                clock=MonotonicClock(),
                stop_limit_s=stop_limit_s,
                budget=RestartBudget(restarts=restarts, window_s=3600.0),
            ).run()
        )

    process = FORK.Process(target=supervise)
    process.start()
    try:
        yield Running(process, ours)
    finally:
        process.kill()
        process.join()


def test_a_killed_worker_is_replaced_and_the_others_live_on() -> None:
    with supervised(until_told) as running:
        first, second = running.next("start"), running.next("start")
        os.kill(first[1], signal.SIGKILL)

        assert running.next("end")[1] == first[1]
        number, pid = running.next("start")
        os.kill(second[1], 0)  # raises if it were gone
        assert (number, {first[0], second[0]}) == (0, {0, 1})
        assert pid not in {first[1], second[1]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_all_workers_and_starts_none(number: signal.Signals) -> None:
    with supervised(until_told, count=3) as running:
        pids = {running.next("start")[1] for _ in range(3)}
        assert running.process.pid is not None
        os.kill(running.process.pid, number)

        assert {running.next("end")[1] for _ in range(3)} == pids
        assert running.status() == 0
        assert not running.events.poll()


def test_a_worker_that_does_not_end_is_killed_after_the_limit() -> None:
    def deaf(_: int, serves: Callable[[], None]) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        serves()
        while True:
            time.sleep(1)

    with supervised(deaf, count=1, stop_limit_s=0.1) as running:
        running.next("start")
        assert running.process.pid is not None
        os.kill(running.process.pid, signal.SIGTERM)

        assert running.status() == 0


def test_a_first_worker_that_cannot_serve_ends_the_gateway_with_its_status() -> None:
    with supervised(lambda _number, _serves: 2, count=4) as running:
        _, pid = running.next("start")

        assert running.next("end")[1] == pid
        assert running.status() == 2
        assert not running.events.poll()  # no other was started


def test_workers_that_die_too_often_end_the_gateway_as_failed() -> None:
    def short(_: int, serves: Callable[[], None]) -> int:
        serves()
        return 7

    with supervised(short, count=1, restarts=2) as running:
        lives = [(running.next("start"), running.next("end")) for _ in range(3)]

        assert running.status() == 2
        assert len(lives) == 3
        assert not running.events.poll()


def test_workers_do_not_outlive_a_killed_supervisor() -> None:
    with supervised(until_told) as running:
        pids = [running.next("start")[1] for _ in range(2)]
        running.process.kill()
        running.process.join()

        deadline_s = MonotonicClock().now() + LIMIT_S
        while any(is_running(pid) for pid in pids):
            assert MonotonicClock().now() < deadline_s
            time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
