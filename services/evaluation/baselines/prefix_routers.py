"""Routers between vLLM engines as others publish them: in turn, by requests alone, by the cost of
Dynamo's KV router, and by the scorers of llm-d. The last two know each engine's prefix cache as it
is now.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.evaluation.baselines.routers import Engines, Traffic, of_role, uncached
from shared.engines import Role
from shared.scheduling.rows import NO_SLO
from shared.simulation.engine import SimEngine
from shared.simulation.system import Route, SimRequest

# The cost of a request on each engine; the least is taken.
Costs = Callable[[SimRequest, Sequence[SimEngine], Traffic, float], Sequence[float]]


@dataclass(slots=True)
class RoundRobin:
    """Sends requests to the decode engines in turn."""

    _sent: int = 0

    def route(self, request: SimRequest, engines: Engines, now: float) -> Route | None:  # noqa: ARG002 - a Router
        decode = of_role(engines, Role.DECODE)
        if not decode:
            return None
        self._sent += 1
        return Route(decode=decode[self._sent % len(decode)].name, kind=NO_SLO)

    def ended(self, index: int) -> None:
        """Nothing to do: turns do not depend on load."""


@dataclass(slots=True)
class LeastCost:
    """Sends all of a request to the decode engine of the least cost; of several, to the one with
    the fewest requests.
    """

    costs: Costs
    _traffic: Traffic = field(default_factory=Traffic)

    def route(self, request: SimRequest, engines: Engines, now: float) -> Route | None:
        decode = of_role(engines, Role.DECODE)
        if not decode:
            return None
        costs = self.costs(request, decode, self._traffic, now)
        _, _, name = min(
            (cost, self._traffic.requests(engine), engine.name)
            for cost, engine in zip(costs, decode, strict=True)
        )
        self._traffic.sent(request, name, name, uncached(request, engines[name]), now)
        return Route(decode=name, kind=NO_SLO)

    def ended(self, index: int) -> None:
        self._traffic.ended(index)


def by_requests(
    request: SimRequest,  # noqa: ARG001 - a Costs
    engines: Sequence[SimEngine],
    traffic: Traffic,
    now: float,  # noqa: ARG001 - a Costs
) -> list[float]:
    """The number of requests on the engine."""
    return [float(traffic.requests(engine)) for engine in engines]


def dynamo_costs(prefill_scale: float) -> Costs:
    """The cost of Dynamo's KV router: `prefill_scale` times the prompt tokens to compute with this
    request, plus the tokens of KV in use. At temperature 0 the least is taken.
    """

    def costs(
        request: SimRequest, engines: Sequence[SimEngine], traffic: Traffic, now: float
    ) -> list[float]:
        return [
            prefill_scale * (traffic.queued_tokens(engine, now) + uncached(request, engine))
            + traffic.kv_tokens(engine)
            for engine in engines
        ]

    return costs


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerWeights:
    """Weights of llm-d's scorers, each of which gives an engine 0 to 1.

    Attributes:
        prefix: The share of the prompt that the engine has cached.
        kv: The share of its KV that is free.
        queue: Its waiting requests, from the most (0) to the fewest (1) of all engines.
        active: The same for all of its requests, from the most to none.
    """

    prefix: float
    kv: float
    queue: float
    active: float = 0.0


def llmd_costs(weights: ScorerWeights) -> Costs:
    """The negative of the weighted sum of scores, of which llm-d takes the greatest."""

    def costs(
        request: SimRequest, engines: Sequence[SimEngine], traffic: Traffic, now: float
    ) -> list[float]:
        queued = [traffic.waiting(engine, now) for engine in engines]
        active = [traffic.requests(engine) for engine in engines]
        least, span = min(queued), max(queued) - min(queued)
        most = max(active)
        return [
            -weights.prefix * (1 - uncached(request, engine) / request.prompt_tokens)
            - weights.kv * engine.free_blocks / engine.hardware.kv_blocks
            - weights.queue * (1 - (queue - least) / span if span else 1.0)
            - weights.active * (1 - requests / most if most else 1.0)
            for engine, queue, requests in zip(engines, queued, active, strict=True)
        ]

    return costs
