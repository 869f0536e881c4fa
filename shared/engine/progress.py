"""Whether an engine core makes progress with what it holds. Counts ticks of its host; no clock."""

from dataclasses import dataclass

from shared.engines import StepReport
from shared.ticks import TICK_S

_STEPS = 4.0  # a core may be silent for as many of its longest steps
_BUSY = 0.2  # what a tick counts in which the core computed, or waited for a CPU or for memory
_KEPT = 0.999  # of the longest step, with every step since


@dataclass(slots=True)
class Progress:
    """A core that holds work gives a sign of itself with every step and between them.

    The host counts its own ticks: on a machine that starves both, hardly any come. A core that is
    busy without an end of its step is slow or starved more often than it hangs: it gets more time.

    Attributes:
        longest_s: The longest step that is predicted or was seen of late.
        limit_s: So long a core may be silent in any case.
    """

    longest_s: float = 0.0
    limit_s: float = 4.0
    _silent_ticks: float = 0.0

    def heard(self) -> None:
        """It gave a sign."""
        self._silent_ticks = 0.0

    def stepped(self, report: StepReport) -> None:
        """A step was carried out."""
        self.heard()
        took_s = max(report.duration_s, report.predicted_s, report.busy_s)
        self.longest_s = max(took_s, _KEPT * self.longest_s)

    def tick(self, *, holds_work: bool, busy: bool = False) -> None:
        """A moment of the host has passed."""
        counts = _BUSY if busy else 1.0
        self._silent_ticks = self._silent_ticks + counts if holds_work else 0.0

    @property
    def silent_s(self) -> float:
        return self._silent_ticks * TICK_S

    @property
    def overdue_s(self) -> float:
        """For how long it has been silent beyond its longest step; 0 while that may last."""
        return max(0.0, self.silent_s - self.longest_s - TICK_S)

    @property
    def stalled(self) -> bool:
        return self.silent_s >= max(self.limit_s, _STEPS * self.longest_s)
