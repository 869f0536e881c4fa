"""`simulate` and `plan` on classes of one's own, in processes as users run them."""

from pathlib import Path

import pytest

from services.evaluation.capacity import measure
from services.evaluation.options import CapacityOptions, PlanOptions, SimulateOptions
from services.evaluation.plan import plan, sentences
from services.evaluation.simulate import simulate
from services.evaluation.systems import SYSTEMS
from shared.errors import ConfigError

_CLASSES = """
classes:
  chat:
    {share: 3, prompt_tokens: 500, output_tokens: 100, ttft_slowdown: 5, tpot_ms: 60,
     pacing: deadlines}
  code: {prompt_tokens: 900, output_tokens: 40, ttft_slowdown: 5, tpot_ms: 40}
"""


@pytest.fixture
def classes(tmp_path: Path) -> str:
    path = tmp_path / "classes.yaml"
    path.write_text(_CLASSES)
    return str(path)


def test_classes_of_ones_own_go_through_ours_and_a_rival(classes: str) -> None:
    options = SimulateOptions(
        classes=classes, rate=3.0, requests=40, system=("slos-serve", "dynamo"), fleet="2", jobs=2
    )

    ours, rival = simulate(options)

    assert (ours.task.system, rival.task.system) == ("slos-serve", "dynamo")
    for point in (ours, rival):
        counts = {one.name: one.requests for one in point.classes}
        assert counts == {"all": 40, "chat": 30, "code": 10}
    asked = {one.name: (one.attained["asked"], one.attained) for one in ours.classes}
    assert asked["chat"][0] == asked["chat"][1]["deadlines"]
    assert asked["code"][0] == asked["code"][1]["mean"]


def test_of_all_systems_those_run_that_the_fleet_is_enough_for(
    classes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = SimulateOptions(classes=classes, rate=1.0, requests=20, system=("all",), jobs=2)

    names = {point.task.system for point in simulate(options)}

    assert names == set(SYSTEMS) - {"distserve", "dynamo"}
    assert "left out: dynamo cannot run on --fleet 1" in capsys.readouterr().err


def test_too_few_requests_for_a_load_are_said_before_anything_runs(classes: str) -> None:
    with pytest.raises(ConfigError, match="at least 20"):
        simulate(SimulateOptions(classes=classes, rate=1.0, requests=10))


@pytest.mark.parametrize("scenario", ["", "ChatBot"])
def test_a_fleet_is_asked_for_one_load(classes: str, scenario: str) -> None:
    none_or_two = SimulateOptions(classes=classes if scenario else "", scenario=scenario, rate=1.0)

    with pytest.raises(ConfigError, match="one of them"):
        simulate(none_or_two)


def test_a_plan_names_the_smallest_fleet_and_what_one_engine_less_would_miss(classes: str) -> None:
    options = PlanOptions(classes=classes, rate=30.0, seconds=20.0, most=8, jobs=2)

    sized = plan(options)

    assert sized.engines is not None
    kept = [point.attained["asked"][0] for point in sized.choices]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] >= options.attainment
    assert (sized.fewer is None) == (sized.engines == 1)
    told = " ".join(sentences(sized, options))
    assert f"Take {sized.engines} x {options.hardware}" in told


def test_capacity_of_classes_of_ones_own_is_kept_under_what_they_said(
    classes: str, tmp_path: Path
) -> None:
    options = CapacityOptions(
        classes=classes,
        systems=("slos-serve", "vllm"),
        replicas=(1,),
        attainment=(0.9,),
        quick=True,
        out=str(tmp_path / "out"),
        jobs=2,
    )

    results = measure(options)

    rates = {one.cell.system: one.rate for one in results.capacities}
    (bound,) = results.bounds
    assert results.rule == "asked"
    assert all(0 < rate <= bound.rate for rate in rates.values())
    (kept,) = (tmp_path / "out").glob("classes-*.yaml")
    assert kept.read_text() == Path(classes).read_text()
    assert {one.scenario for one in results.loads} == {f"classes:{kept}"}
