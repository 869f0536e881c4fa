"""When each token of a sequence with deadlines is due, and how late its worst one came. Pure; it
reads no clock and knows no stages: whoever notes a token says the pace that it costs.
"""

from dataclasses import dataclass, field

from shared.requests import Pacing, Placement


@dataclass(slots=True)
class DeadlineLine:
    """Times count from the arrival. The first token is due at `ttft_s`, any later one a pace after
    the one before it was due, whenever that one came; a pace without end means never.

    `lateness` is the worst quotient of when a token came and when it was due, of those after the
    first; 0 where there is none.
    """

    ttft_s: float
    lateness: float = 0.0
    _last_due_s: float | None = field(default=None, init=False)

    def next_due_s(self, pace_s: float) -> float:
        return self.ttft_s if self._last_due_s is None else self._last_due_s + pace_s

    def produced(self, came_at_s: float, pace_s: float) -> None:
        """One token came; of several that came together, each is due at its own time."""
        due_s = self.next_due_s(pace_s)
        if self._last_due_s is not None:
            self.lateness = max(self.lateness, came_at_s / due_s)
        self._last_due_s = due_s


def deadline_line(placement: Placement) -> DeadlineLine | None:
    """None where the mean is what counts."""
    if placement.pacing is not Pacing.DEADLINES or placement.ttft_s is None:
        return None
    return DeadlineLine(placement.ttft_s)
