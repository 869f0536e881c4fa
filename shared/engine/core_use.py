"""Whether a process runs or would like to: what Linux counts for each of its threads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shared.ticks import TICK_S

_SHARE: Final = 0.1  # of a tick, below which a process counts as idle
_NS: Final = 1e-9
_STATE, _MAJOR_FAULTS = 0, 9  # fields of `stat` after the name
_WAITS_FOR_DISK: Final = "D"


@dataclass(slots=True)
class CoreUse:
    """The processes of one engine core.

    Attributes:
        computes: Whether they compute by themselves, on CPUs; one that waits for a GPU spins.
    """

    pids: Sequence[int]
    computes: bool
    _seconds: float = field(default=0.0)
    _faults: int = field(default=0)

    def is_busy(self) -> bool:
        """Whether they used CPU, or waited for one or for their memory, since the last call."""
        threads = [one for pid in self.pids for one in Path(f"/proc/{pid}/task").glob("*")]
        seconds_before, self._seconds = self._seconds, sum(map(self._seconds_of, threads))
        stats = [stat for one in threads for stat in _stat_of(one)]
        faults_before, self._faults = self._faults, sum(int(one[_MAJOR_FAULTS]) for one in stats)
        return (
            self._seconds - seconds_before >= _SHARE * TICK_S
            or self._faults > faults_before
            or any(one[_STATE] == _WAITS_FOR_DISK for one in stats)
        )

    def _seconds_of(self, thread: Path) -> float:
        try:
            ran_ns, waited_ns, _ = (thread / "schedstat").read_text().split()
        except (OSError, ValueError):
            return 0.0  # it has ended, or this system does not count
        return (int(waited_ns) + self.computes * int(ran_ns)) * _NS


def _stat_of(thread: Path) -> Iterator[list[str]]:
    """Its fields after the name; nothing of one that has ended."""
    try:
        yield (thread / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return
