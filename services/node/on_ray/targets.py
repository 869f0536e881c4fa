"""How many engines of a role there are to be: what an operator set, or what the planner advises."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Targets:
    """The wanted number of actors of each service.

    A number that an operator set holds. Without one, advice from the planner is followed: upwards
    at once, downwards when it has been lower for `down_after_s`, and then to the highest number
    advised in that time.
    """

    down_after_s: float
    fixed: dict[str, int] = field(default_factory=dict)
    _lower: "dict[str, _Lower]" = field(default_factory=dict)

    def fix(self, counts: Mapping[str, int | None]) -> None:
        """None gives a service back to the planner's advice."""
        for service, count in counts.items():
            self._lower.pop(service, None)
            if count is None:
                self.fixed.pop(service, None)
            else:
                self.fixed[service] = count

    def wanted(self, service: str, present: int, advised: int | None, now: float) -> int:
        """`present` is what Ray runs and starts now; `advised` is None where there is no advice."""
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
    """A time in which fewer engines were advised than there are."""

    since_s: float
    highest: int
