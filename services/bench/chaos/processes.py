"""Finds, signals and counts the operating-system processes of a fleet."""

import resource
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from services.node.plan import Part

_NO_LIMIT: Final = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
_FULL: Final = (1, resource.RLIM_INFINITY)  # size of a file in bytes beyond which writes fail
_CORE: Final = " core"  # suffix of the name of an engine core
_SHARED: Final = Path("/dev/shm")  # noqa: S108 - only read


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Resources of one process."""

    pid: int
    rss_mib: float
    files: int
    threads: int
    tasks: int | None = None  # asyncio tasks; an engine core has none

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def process_of(part: Part) -> psutil.Process | None:
    """The process that was started for a part; None while there is none."""
    for one in psutil.Process().children():
        with suppress(psutil.Error):
            if tuple(one.cmdline()) == part.command:
                return one
    return None


def core_of(part: Part) -> psutil.Process | None:
    """The engine core of an engine host; vLLM gives it its name."""
    host = process_of(part)
    for one in host.children() if host else ():
        with suppress(psutil.Error):
            if any("EngineCor" in word for word in one.cmdline() or [one.name()]):
                return one
    return None


def is_core(name: str) -> bool:
    """Whether a name of `use_of` is that of an engine core."""
    return name.endswith(_CORE)


def send(process: psutil.Process | None, number: signal.Signals) -> None:
    """Sends a signal to the process, unless it has ended."""
    if process is not None:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def limit_files(part: Part, *, full: bool) -> None:
    """`full` makes every write to a file fail, in all processes of the part."""
    for one in _all_of(part):
        with suppress(psutil.NoSuchProcess):
            one.rlimit(psutil.RLIMIT_FSIZE, _FULL if full else _NO_LIMIT)


def use_of(parts: Sequence[Part], tasks: Mapping[str, int]) -> dict[str, Use]:
    """Resources by part, engine cores apart from hosts. `tasks` has known task counts by part."""
    named = [(part.name, process_of(part)) for part in parts]
    named += [(part.name + _CORE, core_of(part)) for part in parts]
    found: dict[str, Use] = {}
    for name, process in named:
        if process is not None:
            with suppress(psutil.NoSuchProcess):
                found[name] = Use(
                    pid=process.pid,
                    rss_mib=round(process.memory_info().rss / (1 << 20), 1),
                    files=process.num_fds(),
                    threads=process.num_threads(),
                    tasks=tasks.get(name),
                )
    return found


def processes_with(text: str) -> list[str]:
    """Command lines of all other processes that contain `text`."""
    own = psutil.Process()
    family = {own.pid, *(one.pid for one in own.parents())}
    found = []
    for one in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(one.info["cmdline"] or ())
        if text in line and one.info["pid"] not in family:
            found.append(line)
    return found


def orphans() -> set[str]:
    """Names of files in shared memory that no process has mapped."""
    if not _SHARED.is_dir():
        return set()
    names: dict[int, str] = {}  # by inode: a semaphore is mapped before it gets its name
    for one in _SHARED.iterdir():
        with suppress(FileNotFoundError):
            names[one.stat().st_ino] = one.name
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            for line in maps.read_text().splitlines():
                *_, inode, path = line.split(maxsplit=5)
                if path.startswith(f"{_SHARED}/"):
                    names.pop(int(inode), None)
    # A process that ended meanwhile has removed its own.
    return {name for name in names.values() if (_SHARED / name).exists()}


def _all_of(part: Part) -> Iterator[psutil.Process]:
    process = process_of(part)
    if process is not None:
        yield process
        with suppress(psutil.NoSuchProcess):
            yield from process.children(recursive=True)
