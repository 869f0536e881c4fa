"""Describes the machine that the numbers were taken on."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

_CPU_FACTS = Path("/proc/cpuinfo")
_CPU_TIMES = Path("/proc/stat")
NOISE = "Timings on a busy machine are noisy: compare numbers of one run only."


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """`loads` are the mean numbers of runnable processes over 1, 5 and 15 minutes."""

    cores: int
    cpu: str
    loads: tuple[float, float, float]

    @classmethod
    def read(cls) -> "Machine":
        return cls(cores=len(os.sched_getaffinity(0)), cpu=_cpu(), loads=os.getloadavg())

    def as_json(self) -> dict[str, object]:
        loads = [round(load, 2) for load in self.loads]
        return {"cores": self.cores, "cpu": self.cpu, "load_average": loads, "note": NOISE}

    def line(self) -> str:
        loads = " ".join(f"{load:.2f}" for load in self.loads)
        return f"{self.cpu}, {self.cores} cores, load average {loads} at the start. {NOISE}"


def busy_s() -> float:
    """CPU seconds of all cores, busy or stolen, since the machine's start."""
    user, nice, system, _, _, irq, soft_irq, steal = map(
        int, _CPU_TIMES.read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")


def own_s() -> float:
    """CPU seconds of this process and all its descendants, those included that have ended."""
    spent_s: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, fields = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(pid)
        spent_s[pid] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    todo, total_s = [os.getpid()], 0.0
    while todo:
        pid = todo.pop()
        total_s += spent_s.get(pid, 0.0)
        todo += children.get(pid, [])
    return total_s


def _cpu() -> str:
    try:
        lines = _CPU_FACTS.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
