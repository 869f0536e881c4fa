"""The wanted number of engines of each role, by the operator or by the planner's advice."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Targets:
    """The wanted number of actors of each service.

    The operator's number has priority. Without one, the number follows the planner's advice:
    upwards at once, downwards after advice was lower for `down_after_s`, to the highest number
    advised in that time.
    """

    down_after_s: float
    fixed: dict[str, int] = field(default_factory=dict)
    _lower: "dict[str, _Lower]" = field(default_factory=dict)

    def fix(self, counts: Mapping[str, int | None]) -> None:
        """Sets the operator's numbers; None returns a service to the planner's advice."""
        for service, count in counts.items():
            self._lower.pop(service, None)
            if count is None:
                self.fixed.pop(service, None)
            else:
                self.fixed[service] = count

    def wanted(self, service: str, present: int, advised: int | None, now: float) -> int:
        """The number to run. `present` actors run or start now; `advised` None: no advice."""
        if service in self.fixed:
            return self.fixed[service]
        if advised is None or advised >= present:
            self._lower.pop(service, None)
            return present if advised is None else advised
        lower = self._lower.setdefault(service, _Lower(since_s=now, highest=advised))
        lower.highest = max(lower.highest, advised)
        if now - lower.since_s < self.down_after_s:
            return present
        del self._lower[service]
        return lower.highest


@dataclass(slots=True)
class _Lower:
    """A time in which advice was below the present number."""

    since_s: float
    highest: int
