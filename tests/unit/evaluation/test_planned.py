"""Our planner on simulated engines: it serves each request that it lets in, reproducibly."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from services.evaluation.fleets import make_engines
from services.evaluation.planned import Planned, Settings
from services.evaluation.settings import Setting
from services.evaluation.systems import OURS
from services.evaluation.variants import ablated, build, table_of
from shared.batch_time import Step, to_plain
from shared.batch_time.profile_fit import fit_of
from shared.engines import Role
from shared.hardware import profiled
from shared.hardware.profile import measured
from shared.requests import Pacing, PlacementMode
from shared.simulation.engine import SimEngine
from shared.simulation.judge import Rule, kept
from shared.simulation.record import Conditions, Outage, Record
from shared.simulation.request_metrics import (
    ADMISSION,
    ADMITTED,
    BEST_EFFORT,
    NEVER_CAME,
    OUTPUT,
    REFUSED,
    TOKENS,
    TTFT,
    UNDECIDED,
)
from shared.simulation.run import Run
from shared.simulation.system import Refusal, Route, SimRequest
from shared.workloads.calls import requests
from tests.unit.shared.simulation.fleet import (
    NOISE,
    drafting,
    fleet,
    hardware,
    random_load,
)

_FLEETS = [(1, 0), (2, 0), (1, 1), (2, 1)]
_ON_WAY_S = 0.05  # from the decision to the engine, and then some
_OUTAGE = Outage(engine="d0", from_s=0.5, until_s=1.0)


def run(seed: int, size: tuple[int, int], *, refuse: bool = False, lost: bool = False) -> Record:
    machine = drafting(hardware(noise=NOISE, kv_blocks=300, max_running_requests=16))
    engines = fleet(machine, *size, seed=seed)
    system = Planned(Settings(best_effort=not refuse), engines)
    conditions = Conditions(outages=(_OUTAGE,) if lost else ())
    return Run(random_load(seed, 60), system, engines, conditions).record()


@pytest.mark.parametrize("size", _FLEETS)
@pytest.mark.parametrize("lost", [False, True])
def test_each_request_that_is_let_in_gets_all_its_tokens(size: tuple[int, int], lost: bool) -> None:
    metrics = run(3, size, lost=lost).metrics

    assert set(metrics[:, ADMISSION]) <= {ADMITTED, BEST_EFFORT}
    assert (metrics[:, TOKENS] == metrics[:, OUTPUT]).all()


@pytest.mark.parametrize("size", _FLEETS)
@pytest.mark.parametrize("seed", [3, 4])
def test_by_deadlines_no_token_of_a_promised_request_is_late(
    size: tuple[int, int], seed: int
) -> None:
    """On engines without noise. Promised by the mean, as all without a TTFT target, some are."""
    load = random_load(seed, 60)

    promised, late = {}, {}
    for pacing in Pacing:
        asked = tuple(
            replace(one, calls=tuple(replace(call, pacing=pacing) for call in one.calls))
            for one in load
        )
        engines = fleet(hardware(kv_blocks=300, max_running_requests=16), *size, seed=seed)
        metrics = Run(asked, Planned(Settings(), engines), engines, Conditions()).record().metrics
        admitted = metrics[(metrics[:, ADMISSION] == ADMITTED) & np.isfinite(metrics[:, TTFT])]
        promised[pacing] = len(admitted)
        late[pacing] = int((~kept(admitted, Rule.DEADLINES)).sum())

    assert promised[Pacing.DEADLINES] > 20
    assert late[Pacing.DEADLINES] == 0
    assert late[Pacing.MEAN] >= late[Pacing.DEADLINES]


@pytest.mark.parametrize("learns", [False, True])
def test_engines_that_have_a_profile_learn_how_slow_they_have_become(learns: bool) -> None:
    fit = fit_of(measured(hardware()))
    assert fit is not None
    engines = fleet(hardware().slower(1.5), 1, 0, seed=1)
    told = engines[0].table = profiled(hardware())
    system = Planned(Settings(), engines, profile=to_plain(fit) if learns else None)

    Run(random_load(1, 60), system, engines, Conditions()).record()

    step = Step(decodes=4, decode_context_tokens=400)
    slower = engines[0].table.expected_s(step) / told.expected_s(step)
    assert slower == pytest.approx(1.5 if learns else 1.0, rel=0.1)
    known = system.state.engines[engines[0].name].table
    assert known is not None
    assert known.expected_s(step) / told.expected_s(step) == pytest.approx(slower, rel=0.1)


@pytest.mark.parametrize(
    ("system", "learns"),
    [
        (OURS, True),
        (ablated("no best effort"), True),
        (ablated("step times are not learned"), False),
        (ablated("step times x 0.7"), False),
    ],
)
def test_evaluated_engines_learn_unless_wrong_step_times_are_tried(
    system: str, learns: bool
) -> None:
    machine = hardware(noise=NOISE)
    table = table_of(system, machine)
    engines = make_engines((Role.DECODE,), machine, table, seed=1)
    load = random_load(1, 20)

    Run(load, build(system, Setting(), engines, load), engines, Conditions()).record()

    assert (engines[0].table.numbers != table.numbers).any() == learns


@pytest.mark.parametrize("size", _FLEETS[1:3])
def test_every_call_of_the_load_is_served_refused_or_never_comes(size: tuple[int, int]) -> None:
    metrics = run(4, size, refuse=True).metrics

    admission = metrics[:, ADMISSION]
    assert len(metrics) == requests(random_load(4, 60))
    assert not (admission == UNDECIDED).any()
    served = np.isin(admission, (ADMITTED, BEST_EFFORT))
    assert (metrics[served, TOKENS] == metrics[served, OUTPUT]).all()
    assert (metrics[~served, TOKENS] == 0).all()
    assert np.isin(admission[~served], (REFUSED, NEVER_CAME)).all()


def test_the_same_run_twice_is_the_same() -> None:
    first, again = (run(5, (2, 1), lost=True) for _ in range(2))

    assert first.metrics.tobytes() == again.metrics.tobytes()
    assert first.routes == again.routes


class Watched(Planned):
    """Notes how many prompts a prefill engine has to the planner that it does not have."""

    def __init__(self, settings: Settings, engines: list[SimEngine]) -> None:
        super().__init__(settings, engines)
        self.too_many: list[int] = []

    def place(self, waiting: Sequence[SimRequest], now: float) -> list[Route | Refusal | None]:
        told = self.state.engines["p0"]
        on_way = sum(hold.due_at_s > now - _ON_WAY_S for hold in told.unseen.values())
        self.too_many.append(len(told.unseen) - on_way)
        return super().place(waiting, now)


def test_the_planner_counts_no_prompt_that_its_prefill_engine_is_done_with() -> None:
    engines = fleet(hardware(kv_blocks=2000), 1, 1)
    system = Watched(Settings(way=PlacementMode.DISAGGREGATED), engines)

    record = Run(random_load(6, 200), system, engines, Conditions()).record()

    assert sum(route.prefill is not None for route in record.routes.values()) > 50
    assert max(system.too_many) == 0


def test_an_engine_that_did_nothing_tells_nothing_again() -> None:
    engines = fleet(hardware(), 2, 0)
    system = Planned(Settings(), engines)
    by_name = {engine.name: engine for engine in engines}

    system.observe(by_name, 1.0)
    first = {name: system.state.engines[name].report for name in by_name}
    system.observe(by_name, 2.0)

    assert all(system.state.engines[name].report is first[name] for name in by_name)
    assert all(first.values())
