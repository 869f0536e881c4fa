"""Whether a process runs or would like to: what Linux counts for each of its threads."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shared.ticks import TICK_S

_SHARE: Final = 0.1  # of a tick, below which a process counts as idle
_NS: Final = 1e-9


@dataclass(slots=True)
class CoreUse:
    """The processes of one engine core.

    Attributes:
        computes: Whether they compute by themselves, on CPUs; one that waits for a GPU spins.
    """

    pids: Sequence[int]
    computes: bool
    _seconds: float = field(default=0.0)

    def is_busy(self) -> bool:
        """Whether they used CPU, or waited for one, since the last call."""
        before, self._seconds = self._seconds, sum(self._of(pid) for pid in self.pids)
        return self._seconds - before >= _SHARE * TICK_S

    def _of(self, pid: int) -> float:
        total_s = 0.0
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                ran_ns, waited_ns, _ = thread.read_text().split()
            except (OSError, ValueError):
                continue  # it has ended, or this system does not count
            total_s += (int(waited_ns) + self.computes * int(ran_ns)) * _NS
        return total_s
