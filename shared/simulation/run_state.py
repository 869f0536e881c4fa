"""The state of a run that its parts share."""

from dataclasses import dataclass, field

from shared.simulation.engine import SimEngine
from shared.simulation.prefixes import Prefixes
from shared.simulation.record import Conditions
from shared.simulation.request_metrics import RequestMetrics
from shared.simulation.system import Route, SimRequest, System
from shared.simulation.timeline import Timeline


@dataclass(slots=True, kw_only=True)
class RunState:
    """A load, its serving system and its fleet at `timeline.now`.

    Attributes:
        serving: The engines of the fleet that are alive, by name.
        requests: Those that have arrived, by index.
        metrics: One row for each call of the load; that of a request is at its index.
        routes: The last route of each placed request, by index.
    """

    system: System
    conditions: Conditions
    serving: dict[str, SimEngine]
    prefixes: Prefixes
    metrics: RequestMetrics
    timeline: Timeline = field(default_factory=Timeline)
    requests: list[SimRequest] = field(default_factory=list)
    routes: dict[int, Route] = field(default_factory=dict)
