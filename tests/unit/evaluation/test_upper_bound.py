from dataclasses import replace

import numpy as np
import pytest

from services.evaluation.drive import drive
from services.evaluation.least_cost import least_costs
from services.evaluation.measure import measure_point
from services.evaluation.points import Point, Task
from services.evaluation.points_in_memory import PointsInMemory
from services.evaluation.scenarios import QUICK, counted_of, hardware_for, hardware_of, load_of
from services.evaluation.study import Cell, Place
from services.evaluation.upper_bound import lasting_rate, upper_bound
from shared.workloads.calls import rate

HARDWARE = hardware_of("opt-7b-a100-40gb")


class Here:
    """Measures in this process."""

    jobs = 1

    def __init__(self) -> None:
        self._ready: list[Point] = []

    def start(self, task: Task) -> None:
        self._ready.append(measure_point(task))

    def next(self) -> Point:
        return self._ready.pop()


@pytest.mark.parametrize("scenario", ["ChatBot", "Coder"])
@pytest.mark.parametrize("system", ["slos-serve", "vllm-paper"])
def test_no_system_carries_more_than_the_bound(scenario: str, system: str) -> None:
    effort = replace(QUICK, least_programs=40, most_programs=40, ratio=1.5)
    place = Place(scenario, 1, effort, 3)
    setting = next(iter(place.settings(system)))

    search = place.search(Cell(scenario=scenario, system=system, replicas=1, bar=0.9), [setting])
    found = drive({"": search}, Here(), PointsInMemory())[""]

    load = load_of(scenario, rate=1.0, programs=place.programs(1), seed=3)
    counted = load[counted_of(lasting=True, programs=len(load))]
    bound = upper_bound(counted, place.hardware, engines=1, bar=0.9) / rate(counted)
    assert 0 < found.rate <= bound


@pytest.mark.parametrize("scenario", ["ChatBot", "Coder", "ToolLLM", "Reasoning"])
def test_an_engine_takes_no_less_than_the_least_cost(scenario: str) -> None:
    """With the program all alone, at its leisure."""
    load = load_of(scenario, rate=0.001, programs=4, seed=1)
    hardware = hardware_of(hardware_for(scenario))

    costs = least_costs(load, hardware)

    assert np.all(costs.prompt_s > 0)
    assert np.all(costs.whole_s >= costs.prompt_s)
    alone = replace(hardware, kv_blocks=hardware.kv_blocks * 10)
    assert least_costs(load, alone).whole_s.sum() <= costs.whole_s.sum() * 1.0001


@pytest.mark.parametrize("bar", [0.5, 0.9, 0.98])
def test_more_engines_and_a_lower_bar_never_lower_the_bound(bar: float) -> None:
    load = load_of("Coder", rate=1.0, programs=120, seed=2)

    for bound in (upper_bound, lasting_rate):
        one = bound(load, HARDWARE, engines=1, bar=bar)
        assert bound(load, HARDWARE, engines=2, bar=bar) >= one * 0.99
        assert bound(load, HARDWARE, engines=1, bar=bar - 0.1) >= one * 0.99


def test_engines_twice_as_fast_carry_about_twice_as_much_for_ever() -> None:
    load = load_of("ChatBot", rate=1.0, programs=100, seed=1)

    one = lasting_rate(load, HARDWARE, engines=1, bar=0.9)

    assert lasting_rate(load, HARDWARE, engines=2, bar=0.9) == pytest.approx(2 * one)
