"""Estimates when the overload of a class is probably over, so that a refused client may retry.

Takes a prior of durations that is uniform in the logarithm. Then an overload that has lasted for t
ends within another k * t with probability k / (1 + k) (Gott, "Implications of the Copernican
principle for our future prospects", Nature 363, 1993).
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from services.planner.tuning import LONGEST_RETRY_S, QUIET_S, RETRY_TIMES
from shared.bounded import remember

_KEPT_CLASSES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Overload:
    """The overload of one class, from its first refusal to the last one. `more_refused` is refused
    less promised requests.
    """

    from_s: float
    last_s: float
    more_refused: int

    def goes_on(self, now: float) -> bool:
        lasted_s = self.last_s - self.from_s
        return self.more_refused > 0 and now - self.last_s <= max(QUIET_S, lasted_s)


class Refusals:
    """The overload of each class. It is over when as many requests were promised as refused, or
    none was refused for as long as it lasted. Bounded.
    """

    def __init__(self) -> None:
        self._overloads: OrderedDict[str, _Overload] = OrderedDict()

    def refused(self, class_name: str, now: float) -> None:
        """Counts a request of this class that got no promise because of the load."""
        known = self._overloads.get(class_name)
        if known is None or not known.goes_on(now):
            known = _Overload(from_s=now, last_s=now, more_refused=0)
        grown = replace(known, last_s=now, more_refused=known.more_refused + 1)
        remember(self._overloads, class_name, grown, _KEPT_CLASSES)

    def promised(self, class_name: str) -> None:
        """Counts a request of this class that was promised its targets."""
        known = self._overloads.get(class_name)
        if known is not None and known.more_refused > 0:
            self._overloads[class_name] = replace(known, more_refused=known.more_refused - 1)

    def over_in_s(self, class_name: str, now: float) -> float:
        """Seconds after which the overload is probably over, at most a minute; 0: there is none."""
        known = self._overloads.get(class_name)
        if known is None or not known.goes_on(now):
            return 0.0
        return min(LONGEST_RETRY_S, RETRY_TIMES * (now - known.from_s))
