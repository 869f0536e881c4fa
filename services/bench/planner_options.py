"""Options of `bench planner`."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from shared.options import option

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerBenchOptions:
    """Options of `bench planner`; the defaults take about two minutes."""

    running: tuple[Count, ...] = option(
        (64, 256, 1024), help="requests that run on the one engine that a decision is about"
    )
    candidates: tuple[Count, ...] = option((1, 8, 32), help="requests that are decided together")
    engines: tuple[Count, ...] = option((1, 8, 64, 256), help="engines of a fleet")
    fleet_running: Count = option(128, help="requests that run on each engine of a fleet")
    fleet_candidates: tuple[Count, ...] = option(
        (1, 8), help="requests that are decided together in a fleet"
    )
    formed: tuple[Count, ...] = option(
        (32, 64, 128, 256, 512, 1024), help="requests of which one step is formed"
    )
    rounds: Count = option(300, help="rounds of decisions of each sort; steps ten times as many")
    limit_s: Annotated[float, Field(gt=0)] = option(
        20.0, help="seconds after which the measurement of one sort ends"
    )
    reporting_engines: Count = option(64, help="engines whose step reports are taken in")
    reports_per_s: Count = option(100, help="steps that each of them reports a second")
    memory: Annotated[int, Field(ge=0)] = option(
        100_000, help="decisions over which memory is watched; 0: none"
    )
    scheduled: tuple[Count, ...] = option(
        (64, 256), help="requests with which vLLM's scheduler is timed beside ours; needs vLLM"
    )
    scheduled_steps: Annotated[int, Field(ge=0)] = option(
        200, help="steps of each of the two schedulers; 0: none"
    )
    first: bool = option(True, help="measure the first decision of a new process")
    json: bool = option(False, help="print one JSON object instead of tables")
