"""Whether a process runs or would like to: what Linux counts for each of its threads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shared.ticks import TICK_S

_SHARE: Final = 0.1  # of a tick, below which a process counts as idle
_NS: Final = 1e-9
_STATE, _MAJOR_FAULTS = 0, 9  # fields of `stat` after the name
_READY: Final = "R"
_WAITS_FOR_DISK: Final = "D"


@dataclass(slots=True)
class CoreUse:
    """The processes of one engine core.

    Attributes:
        computes: Whether they compute by themselves, on CPUs; one that waits for a GPU spins.
    """

    pids: Sequence[int]
    computes: bool
    _ran_s: float = field(default=0.0)
    _waited_s: float = field(default=0.0)
    _faults: int = field(default=0)

    def is_busy(self) -> bool:
        """Whether they used CPU, or waited for one or for their memory, since the last call.

        Linux counts a wait for a CPU when it ends: a thread that is ready and did not run waits.
        """
        threads = [one for pid in self.pids for one in Path(f"/proc/{pid}/task").glob("*")]
        ran_s, waited_s = map(sum, zip((0.0, 0.0), *map(_seconds_of, threads), strict=True))
        stats = [stat for one in threads for stat in _stat_of(one)]
        states = {one[_STATE] for one in stats}
        faults = sum(int(one[_MAJOR_FAULTS]) for one in stats)
        ran = ran_s - self._ran_s >= _SHARE * TICK_S
        waited = waited_s - self._waited_s >= _SHARE * TICK_S or faults > self._faults
        self._ran_s, self._waited_s, self._faults = ran_s, waited_s, faults
        waits = _WAITS_FOR_DISK in states or (_READY in states and not ran)
        return waited or waits or (ran and self.computes)


def _seconds_of(thread: Path) -> tuple[float, float]:
    """For which it ran, and for which it waited for a CPU."""
    try:
        ran_ns, waited_ns, _ = (thread / "schedstat").read_text().split()
    except (OSError, ValueError):
        return 0.0, 0.0  # it has ended, or this system does not count
    return int(ran_ns) * _NS, int(waited_ns) * _NS


def _stat_of(thread: Path) -> Iterator[list[str]]:
    """Its fields after the name; nothing of one that has ended."""
    try:
        yield (thread / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return
