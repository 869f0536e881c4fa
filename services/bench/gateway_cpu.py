"""CPU time of one streamed request, on several servers in turns.

Neighbors on the machine disturb all servers alike, so their ratio holds where no figure alone does.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.bench.answers import Answer
from services.bench.spread import percentile
from shared.clock import Clock
from shared.errors import SlosError

_TAIL_S = 0.005  # for what a server does after the last byte of its answer
_WARM_UP_REQUESTS = 20
_PROCESSES = Path("/proc")


class ProcessMissing(SlosError):
    """A server's process is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server; `pid` is the process that is measured: its threads, without its children."""

    ask: Callable[[], Awaitable[Answer]]
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuPerRequest:
    """Milliseconds of CPU. The tenth percentile is nearest to a machine without neighbors."""

    p10_ms: float
    p50_ms: float


async def cpu_in_turns(
    servers: Mapping[str, Server], requests: int, clock: Clock
) -> dict[str, CpuPerRequest]:
    """Asks A B C A B C, one request at a time, after a warm-up. Raises what `ask` raises."""
    spent_ms: dict[str, list[float]] = {name: [] for name in servers}
    for turn in range(_WARM_UP_REQUESTS + requests):
        for name, server in servers.items():
            before_ms = cpu_ms(server.pid)
            await server.ask()
            await clock.sleep(_TAIL_S)
            if turn >= _WARM_UP_REQUESTS:
                spent_ms[name].append(cpu_ms(server.pid) - before_ms)
    return {
        name: CpuPerRequest(p10_ms=percentile(spent, 10), p50_ms=percentile(spent, 50))
        for name, spent in spent_ms.items()
    }


def pid_of(command: Sequence[str]) -> int:
    """The oldest process with this command line. Raises ProcessMissing."""
    wanted = b"".join(word.encode() + b"\0" for word in command)
    found = []
    for one in _PROCESSES.glob("[0-9]*/cmdline"):
        try:
            if one.read_bytes() == wanted:
                found.append(int(one.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    if not found:
        raise ProcessMissing(f"No process runs {' '.join(command)}")
    return min(found)


def cpu_ms(pid: int) -> float:
    """CPU that the threads of a process, those that live, have used, in milliseconds."""
    spent_ns = 0
    for thread in (_PROCESSES / str(pid) / "task").iterdir():
        try:
            spent_ns += int((thread / "schedstat").read_text().split()[0])
        except OSError:
            continue
    return spent_ns / 1e6
