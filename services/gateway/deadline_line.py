"""When each token of a sequence under deadline pacing is due, and how late the worst one came."""

from dataclasses import dataclass, field

from shared.requests import Pacing, Placement


@dataclass(slots=True)
class DeadlineLine:
    """Due times in seconds from the arrival.

    The first token is due at `ttft_s`. Each later one is due one TPOT target (`pace_s`) after the
    due time of the one before, whenever that one came; an infinite target means never.

    `lateness` is the greatest ratio of arrival to due time of the tokens after the first, else 0.
    """

    ttft_s: float
    lateness: float = 0.0
    _last_due_s: float | None = field(default=None, init=False)

    def next_due_s(self, pace_s: float) -> float:
        return self.ttft_s if self._last_due_s is None else self._last_due_s + pace_s

    def produced(self, came_at_s: float, pace_s: float) -> None:
        """Counts one token. Each of several tokens that came together has its own due time."""
        due_s = self.next_due_s(pace_s)
        if self._last_due_s is not None:
            self.lateness = max(self.lateness, came_at_s / due_s)
        self._last_due_s = due_s


def deadline_line(placement: Placement) -> DeadlineLine | None:
    """The due times of a placed request; None without deadline pacing or a TTFT target."""
    if placement.pacing is not Pacing.DEADLINES or placement.ttft_s is None:
        return None
    return DeadlineLine(placement.ttft_s)
