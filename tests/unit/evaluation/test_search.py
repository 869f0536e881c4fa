from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.evaluation.drive import drive
from services.evaluation.point_store import PointStore
from services.evaluation.points import Task
from services.evaluation.points_in_memory import PointsInMemory
from services.evaluation.scenarios import QUICK
from services.evaluation.search import Found, Search, capacity
from services.evaluation.study import Cell, Place
from services.evaluation.systems import SYSTEMS
from services.evaluation.tuning_cases import tuning_case_of
from services.evaluation.variants import closest, setting_of
from tests.unit.evaluation.builders import Meter, make_point, make_task

RATES = st.floats(0.2, 90)


def task_of(setting: str, rate: float) -> Task:
    return make_task(setting=setting, rate=rate)


def search(names: list[str], *, ratio: float = 1.05, first: float = 4.0) -> Search:
    return capacity(task_of, names, bar=0.9, first=first, bound=100.0, ratio=ratio)


def find(capacities: dict[str, float], *, ratio: float = 1.05, first: float = 4.0) -> Found:
    found = drive(
        {"": search(list(capacities), ratio=ratio, first=first)},
        Meter(capacities),
        PointsInMemory(),
    )
    return found[""]


@given(capacities=st.lists(RATES, min_size=1, max_size=8), ratio=st.floats(1.02, 1.5), first=RATES)
@settings(max_examples=60)
def test_the_capacity_of_the_best_setting_lies_between_the_last_pass_and_the_first_failure(
    capacities: list[float], ratio: float, first: float
) -> None:
    named = {str(number): rate for number, rate in enumerate(capacities)}

    found = find(named, ratio=ratio, first=first)

    best = max(capacities)
    assert found.rate <= best < found.failed * 1.0001
    if best > first / 30:
        assert found.failed <= found.rate * ratio * 1.0001
        assert named[found.setting] >= found.rate


@given(low=RATES, factor=st.floats(1.0, 3.0))
@settings(max_examples=30)
def test_a_system_that_carries_more_is_not_found_to_carry_less(low: float, factor: float) -> None:
    high = min(95.0, low * factor)

    assert find({"a": high}).rate >= find({"a": low}).rate


def test_nothing_is_found_where_nothing_passes() -> None:
    found = find({"a": 0.001, "b": 0.002})

    assert found.rate == 0
    assert found.setting == "b"  # the one that held out longest


def test_by_a_high_bar_the_setting_that_kept_most_goes_on_however_early_that_was_known() -> None:
    """The others kept less than a lower bar, and it took longer to know."""
    names = ["a", "b", "c", "most"]
    asked = capacity(task_of, names, bar=0.98, first=4.0, bound=100.0, ratio=1.05)

    task = next(asked)
    for _ in names[:-1]:
        task = asked.send(make_point(task, 0.85, ended_s=90.0))
    task = asked.send(make_point(task, 0.97, ended_s=50.0))

    assert task.setting == "most"
    assert task.rate < 4.0


def test_the_setting_that_passed_last_stays_however_early_it_fails_far_beyond() -> None:
    names = ["best", "b", "c", "d", "e"]
    asked = capacity(task_of, names, bar=0.9, first=4.0, bound=100.0, ratio=1.05)

    task = asked.send(make_point(next(asked), 0.95))
    assert (task.setting, task.rate) == ("best", 6.0)
    task = asked.send(make_point(task, 0.5, ended_s=1.0))
    for _ in names[1:]:
        task = asked.send(make_point(task, 0.5, ended_s=90.0))

    assert task.setting == "best"
    assert 4.0 < task.rate < 6.0


def test_a_larger_fleet_goes_on_that_played_more_of_its_load_in_less_time() -> None:
    """Splits of a fleet have more engines, and fewer programs for each."""
    names = ["small", "b", "c", "d", "e", "f", "large"]

    def sized(setting: str, rate: float) -> Task:
        engines = 3 if setting == "large" else 1
        return make_task(setting=setting, rate=rate * engines, engines=engines)

    asked = capacity(sized, names, bar=0.9, first=4.0, bound=100.0, ratio=1.05)

    task = next(asked)
    for _ in names[:-1]:
        task = asked.send(make_point(task, 0.5, ended_s=50.0))
    task = asked.send(make_point(task, 0.5, ended_s=40.0))

    assert task.setting == "large"
    assert task.rate < 12.0


def test_half_of_the_settings_are_tried_once_only() -> None:
    capacities = {str(number): 5.0 + number / 100 for number in range(60)}
    meter = Meter(capacities)

    drive({"": search(list(capacities))}, meter, PointsInMemory())

    assert len(meter.asked) < 60 + 30 + 15 + 8 + 10


@pytest.mark.parametrize("bar", [0.9, 0.95, 0.99])
def test_a_run_does_not_end_before_the_bar_of_its_search_is_certain(bar: float) -> None:
    place = Place("ChatBot", 1, QUICK, 1)
    cell = Cell(scenario="ChatBot", system="vllm", replicas=1, bar=bar)

    task = next(place.search(cell))

    assert bar in task.bars


@pytest.mark.parametrize("wrong", [{"settings": []}, {"ratio": 1.0}])
def test_a_search_without_settings_or_grain_is_an_error(wrong: dict[str, object]) -> None:
    given = {"settings": ["a"], "bar": 0.9, "first": 1.0, "bound": 9.0, "ratio": 1.1} | wrong
    names = given.pop("settings")

    with pytest.raises(ValueError, match="a search needs"):
        next(capacity(task_of, names, **given))  # type: ignore[arg-type]  # wrong on purpose


class Killed(Exception):
    """What ends a command in the middle."""


class Dying(Meter):
    """Goes away after so many points."""

    def __init__(self, capacities: dict[str, float], after: int) -> None:
        super().__init__(capacities)
        self._left = after

    def start(self, task: Task) -> None:
        if not self._left:
            raise Killed
        self._left -= 1
        super().start(task)


@pytest.mark.parametrize("after", [0, 1, 3, 7])
def test_a_search_that_was_killed_goes_on_where_it_was_and_finds_the_same(
    tmp_path: Path, after: int
) -> None:
    capacities = {"a": 3.0, "b": 7.0, "c": 2.0}
    whole = Meter(capacities)
    expected = drive({"": search(list(capacities))}, whole, PointsInMemory())[""]

    with pytest.raises(Killed):
        drive({"": search(list(capacities))}, Dying(capacities, after), PointStore(tmp_path))
    again = Meter(capacities)
    found = drive({"": search(list(capacities))}, again, PointStore(tmp_path))[""]

    assert found == expected
    assert len(again.asked) == len(whole.asked) - after


def test_searches_that_ask_the_same_measure_it_once() -> None:
    meter = Meter({"a": 3.0})

    drive({"one": search(["a"]), "two": search(["a"])}, meter, PointsInMemory())

    assert len({(task.setting, task.rate) for task in meter.asked}) == len(meter.asked)


@pytest.mark.parametrize("system", list(SYSTEMS))
@pytest.mark.parametrize("replicas", [1, 4])
def test_a_worker_knows_every_setting_that_is_asked_for(system: str, replicas: int) -> None:
    place = Place("Mixed", replicas, QUICK, 1)

    for label in place.settings(system):
        task = place.task(system, label, 1.0)
        case = tuning_case_of(task.scenario, task.hardware, task.replicas, task.seed)
        assert len(setting_of(system, task.setting, case).roles) == task.engines


@pytest.mark.parametrize("system", list(SYSTEMS))
def test_every_setting_has_one_that_is_tuned_alike_for_another_load(
    system: str, tmp_path: Path
) -> None:
    rows = [f"{number},{300 + 7 * number},20" for number in range(200)]
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n" + "\n".join(rows) + "\n")
    there = Place(f"trace:Coder:{trace}", 4, QUICK, 1).settings(system)

    for setting in Place("Coder", 4, QUICK, 1).settings(system).values():
        found = closest(setting, there.values())

        assert found.label in there
        assert replace(found, threshold_tokens=setting.threshold_tokens) == setting
