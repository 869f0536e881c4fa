"""Tenants on simulated engines under the production planner: one floods, or all do."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest

from services.evaluation.planned import Planned, Settings
from shared.requests import PlacementQuery
from shared.simulation.judge import Rule, kept
from shared.simulation.record import Conditions, Record
from shared.simulation.request_metrics import ADMISSION, ARRIVES, BEST_EFFORT, FIRST, TOKENS
from shared.simulation.run import Run
from shared.simulation.system import SimRequest
from shared.workloads.calls import Load
from tests.unit.shared.simulation.fleet import call, fleet, hardware, program

_FROM_S, _UNTIL_S = 3.0, 15.0  # before, the planner learns how long answers are


class OfTenants(Planned):
    """A program's name begins with that of its tenant."""

    weights: Mapping[str, float] = {}

    def _query(self, request: SimRequest) -> PlacementQuery:
        query, name = super()._query(request), tenant_of(request)
        if name not in self.weights:
            return query
        return replace(query, tenant=name, weight=self.weights[name])


def tenant_of(request: SimRequest) -> str:
    return request.program_id.split("-")[0]


def load(rates: Mapping[str, float]) -> Load:
    """Requests of each tenant at its rate, in even gaps."""
    programs = [
        program(f"{name}-{number}", (number + 0.5) / rate, call(prompt=100, output=40, ttft_s=0.5))
        for name, rate in rates.items()
        for number in range(int(rate * _UNTIL_S))
    ]
    return tuple(sorted(programs, key=lambda one: one.arrives_s))


def run(
    rates: Mapping[str, float], weights: Mapping[str, float], *, best_effort: bool = False
) -> Record:
    """On an engine that serves ten such requests a second: four at once, 0.4 s each."""
    engines = fleet(hardware(max_running_requests=4, kv_blocks=1000))
    system = OfTenants(Settings(best_effort=best_effort), engines)
    system.weights = weights
    return Run(load(rates), system, engines, Conditions(drain_s=5.0)).record()


@dataclass(frozen=True, slots=True)
class Got:
    """Of a tenant: the share of requests whose targets were kept, and tokens of what began."""

    attainment: float
    tokens: float


def got(record: Record) -> dict[str, Got]:
    metrics = record.metrics
    names = np.array([tenant_of(request) for request in record.requests])
    in_time = kept(metrics, Rule.ASKED)
    counted = (metrics[:, ARRIVES] >= _FROM_S) & (metrics[:, ARRIVES] < _UNTIL_S)
    began = (metrics[:, FIRST] >= _FROM_S) & (metrics[:, FIRST] < _UNTIL_S)
    return {
        name: Got(
            attainment=float(in_time[counted & (names == name)].mean()),
            tokens=float((100 + metrics[began & (names == name), TOKENS]).sum()),
        )
        for name in sorted(set(names.tolist()))
    }


def test_a_tenant_below_its_share_is_served_while_another_floods() -> None:
    rates = {"flood": 40.0, "calm": 3.0}

    without = got(run(rates, {}))
    with_tenants = got(run(rates, {"flood": 1.0, "calm": 1.0}))

    assert without["calm"].attainment < 0.6
    assert with_tenants["calm"].attainment > 0.98
    served = [sum(one.tokens for one in each.values()) for each in (with_tenants, without)]
    assert served[0] > 0.75 * served[1]


@pytest.mark.parametrize(
    ("rate", "weight", "best_effort"),
    [(40, 1, False), (40, 3, False), (15, 3, False), (15, 3, True)],
)
def test_in_overload_work_is_shared_by_weight(
    rate: float, weight: float, best_effort: bool
) -> None:
    rates = {"a": rate, "b": 15.0}

    each = got(run(rates, {"a": 1.0, "b": weight}, best_effort=best_effort))

    assert each["b"].tokens / each["a"].tokens == pytest.approx(weight, rel=0.15)


def test_a_tenant_alone_is_served_as_if_there_were_none() -> None:
    rates = {"a": 15.0}

    without, alone = run(rates, {}, best_effort=True), run(rates, {"a": 3.0}, best_effort=True)

    assert (without.metrics[:, ADMISSION] == BEST_EFFORT).any()
    assert alone.metrics.tobytes() == without.metrics.tobytes()
    assert alone.routes == without.routes
