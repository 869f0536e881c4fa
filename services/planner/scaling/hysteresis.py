"""A fleet size that grows at once and shrinks only after a time of smaller needs."""

from collections import deque
from dataclasses import dataclass, field

from services.planner.scaling.fleet_size import FleetSize


@dataclass(slots=True)
class Hysteresis:
    """The desired `size`, which last changed at `changed_at_s`.

    It shrinks to the greatest need of the last `hold_s`, and no sooner than `hold_s` after the last
    change. So in any time t it changes direction at most 2 t / hold_s + 2 times.
    """

    hold_s: float
    size: FleetSize
    changed_at_s: float
    _needs: deque[tuple[float, FleetSize]] = field(default_factory=deque)

    def take(self, needed: FleetSize, enough: FleetSize, now: float) -> FleetSize:
        """Returns the new size. `needed` is the present size with what it lacks, `enough` the size
        that would suffice.
        """
        if needed.at_least(self.size) != self.size:
            self._change(needed.at_least(self.size), now)
            return self.size
        self._needs.append((now, enough))
        while len(self._needs) > 1 and self._needs[1][0] <= now - self.hold_s:
            self._needs.popleft()
        if now - max(self.changed_at_s, self._needs[0][0]) >= self.hold_s:
            lower = enough
            for _, one in self._needs:
                lower = lower.at_least(one)
            if lower != self.size:
                self._change(lower, now)
        return self.size

    @property
    def lower_since_s(self) -> float | None:
        """Since when fewer engines would suffice; None where they would not."""
        since_s = None
        for at_s, one in reversed(self._needs):
            if one == self.size:
                break
            since_s = at_s
        return since_s

    def _change(self, size: FleetSize, now: float) -> None:
        self.size, self.changed_at_s = size, now
        self._needs.clear()
