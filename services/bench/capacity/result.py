"""The result of `bench capacity`: points, capacities, throughput at saturation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.bench.capacity.classes import Targets
from services.bench.capacity.points import Point, times
from services.bench.capacity.search import capacity, crossing
from services.bench.capacity.workload import Load
from services.bench.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """One system (`contender`) on one load, with the variants tried; the best one counts."""

    load: str
    contender: str
    variants: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """One turn of a closed loop without targets."""

    system: str
    requests_per_s: float
    tokens_per_s: float


@dataclass(slots=True, kw_only=True)
class CapacityResult:
    """Filled during the measurement, so that points before an error can be shown."""

    machine: Machine
    needed: float
    options: Mapping[str, Any] = field(default_factory=dict)  # as given
    targets: Targets | None = None
    point_s: float = 0.0
    points: list[Point] = field(default_factory=list)
    searched: list[Searched] = field(default_factory=list)
    overload: list[Point] = field(default_factory=list)
    throughputs: list[Throughput] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def best_points(self, one: Searched, *, overload: bool = False) -> dict[float, Point]:
        """Points by rate, ascending; at each rate, the variant with the greatest attainment.

        `overload` adds the points under overload, which are not part of the search.
        """
        best: dict[float, Point] = {}
        for point in [*self.points, *(self.overload if overload else ())]:
            if point.load == one.load and point.system in one.variants:
                before = best.get(point.rate_rps)
                if before is None or point.attainment > before.attainment:
                    best[point.rate_rps] = point
        return dict(sorted(best.items()))

    def times_taken(self, system: str, load: Load, rate_rps: float) -> int:
        """The number of points of a system at a rate."""
        wanted = (system, load.name, rate_rps)
        return sum((one.system, one.load, one.rate_rps) == wanted for one in self.points)

    def attainments(self, one: Searched, class_name: str | None = None) -> dict[float, float]:
        """Attainment by rate, of all requests or of one class."""
        found = {
            rate: point.attainment if class_name is None else point.attainment_of(class_name)
            for rate, point in self.best_points(one).items()
        }
        return {rate: share for rate, share in found.items() if share is not None}

    def class_names(self, load: str) -> list[str]:
        return sorted({name for one in self.points if one.load == load for name in one.by_class})

    def capacity_json(self, one: Searched) -> dict[str, Any]:
        names = self.class_names(one.load)
        return {
            "load": one.load,
            "system": one.contender,
            "variants": list(one.variants),
            **self._capacity(one, None),
            "classes": {name: self._capacity(one, name) for name in names},
        }

    def _capacity(self, one: Searched, class_name: str | None) -> dict[str, Any]:
        attainments = self.attainments(one, class_name)
        passed, above = capacity(attainments, self.needed)
        return {
            "capacity_rps": round(passed, 4),
            "next_rate_tried_rps": None if above is None else round(above, 4),
            "crossing_rps": round(crossing(attainments, self.needed), 4),
        }

    def as_json(self) -> dict[str, Any]:
        return {
            "bench": "capacity",
            "machine": self.machine.as_json(),
            "options": self.options,
            "attainment_needed": self.needed,
            "point_s": round(self.point_s, 1),
            "zero_load": self.targets.zero_load.as_json() if self.targets else None,
            "targets": self.targets.configuration() if self.targets else None,
            "capacities": [self.capacity_json(one) for one in self.searched],
            "overload": [point.as_json() | times(point.judged) for point in self.overload],
            "saturation": _saturation(self.throughputs),
            "points": [point.as_json() for point in self.points],
            "notes": self.notes,
        }


def _saturation(turns: Sequence[Throughput]) -> Mapping[str, Any]:
    return {
        name: {
            "requests_per_s": [round(one.requests_per_s, 3) for one in turns if one.system == name],
            "tokens_per_s": [round(one.tokens_per_s, 2) for one in turns if one.system == name],
        }
        for name in dict.fromkeys(one.system for one in turns)
    }
