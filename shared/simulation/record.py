"""The conditions of a run, and its record."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.simulation.engine import SimEngine
from shared.simulation.request_metrics import RequestMetrics
from shared.simulation.system import Route, SimRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """An engine dies at `from_s` and is back at `until_s`."""

    engine: str
    from_s: float
    until_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The conditions of a run, beside its load.

    Attributes:
        network_s: One-way delay between any two processes.
        decision_s: Duration of a round of decisions.
        drain_s: Time after the last arrival at which the run ends at the latest.
        fetched_at_steps: An engine starts to fetch KV only between its steps, as vLLM does.
        retry_s: Time after which a refused client retries, once; 0: the time in the answer; None:
            no retries.
    """

    network_s: float = 0.0005
    decision_s: float = 0.001
    drain_s: float = 120.0
    fetched_at_steps: bool = True
    outages: tuple[Outage, ...] = ()
    retry_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The retry at `again_s` of a request that was refused at `refused_s`, in seconds of the run.

    `index` is that of its row in the metrics.
    """

    index: int
    refused_s: float
    again_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """The result of a run.

    `requests` and `metrics` correspond: one for each call of the load that arrived, or that its
    program never reached. For a request in `retries` they are those of the retry.
    """

    requests: tuple[SimRequest, ...]
    metrics: RequestMetrics
    routes: dict[int, Route]
    engines: tuple[SimEngine, ...]
    ended_s: float
    retries: tuple[Retry, ...] = ()


# Called during the run; True ends the run early.
Watch = Callable[[Sequence[SimRequest], RequestMetrics, float], bool]
