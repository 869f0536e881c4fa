"""`simulate`, `plan` and `capacity` on classes of one's own, in processes as users run them."""

from dataclasses import replace
from pathlib import Path

import pytest

from services.evaluation import capacity
from services.evaluation.options import CapacityOptions, PlanOptions, SimulateOptions
from services.evaluation.plan import plan, sentences
from services.evaluation.scenarios import QUICK, hardware_for
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


# One process where several systems run: each process compiles all of them in a fresh clone.
SMALL = replace(QUICK, least_programs=30, most_programs=30, ratio=1.6, settings=2)


@pytest.fixture
def classes(tmp_path: Path) -> str:
    path = tmp_path / "classes.yaml"
    path.write_text(_CLASSES)
    return str(path)


def test_classes_of_ones_own_go_through_ours_and_a_baseline(classes: str) -> None:
    options = SimulateOptions(
        classes=classes, rate=3.0, requests=40, system=("slos-serve", "dynamo"), fleet="2", jobs=2
    )

    ours, baseline = simulate(options)

    assert (ours.task.system, baseline.task.system) == ("slos-serve", "dynamo")
    for point in (ours, baseline):
        counts = {one.name: one.requests for one in point.classes}
        assert counts == {"all": 40, "chat": 30, "code": 10}
    asked = {one.name: (one.attained["asked"], one.attained) for one in ours.classes}
    assert asked["chat"][0] == asked["chat"][1]["deadlines"]
    assert asked["code"][0] == asked["code"][1]["mean"]


def test_of_all_systems_those_run_that_the_fleet_is_enough_for(
    classes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = SimulateOptions(classes=classes, rate=1.0, requests=4, system=("all",), jobs=1)

    names = {point.task.system for point in simulate(options)}

    assert names == set(SYSTEMS) - {"distserve", "dynamo"}
    assert "left out: dynamo cannot run on --fleet 1" in capsys.readouterr().err


def test_too_few_requests_for_a_load_are_said_before_anything_runs(classes: str) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        simulate(SimulateOptions(classes=classes, rate=1.0, requests=1))


def test_a_class_that_the_model_is_too_short_for_is_no_load(tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    path.write_text(_CLASSES.replace("prompt_tokens: 900", "prompt_tokens: 70000"))

    with pytest.raises(ConfigError, match="class code are longer than the 8192 tokens"):
        simulate(SimulateOptions(classes=str(path), rate=1.0))


def test_a_trace_comes_at_its_own_times(tmp_path: Path) -> None:
    path = tmp_path / "two_rates.csv"
    times = [number / 20 for number in range(40)] + [2.0 + number for number in range(20)]
    rows = [f"{at_s},100,10" for at_s in times]
    path.write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]))
    options = SimulateOptions(trace=str(path), targets="chatbot", jobs=1, setting="no drafts")

    (whole,) = simulate(options)
    (part,) = simulate(replace(options, seconds=2.0))

    assert (whole.task.programs, part.task.programs) == (60, 41)
    assert whole.task.rate == pytest.approx(59 / 21.0, rel=1e-3)
    assert whole.task.hardware == hardware_for("ChatBot")


def test_a_setting_is_one_of_the_fleet(classes: str) -> None:
    split = "3 prefill + 1 decode, no drafts"
    options = SimulateOptions(classes=classes, rate=1.0, setting=split, fleet="1")

    with pytest.raises(ConfigError, match="--fleet prefill=3,decode=1"):
        simulate(options)


@pytest.mark.parametrize("scenario", ["", "ChatBot"])
def test_a_fleet_is_asked_for_one_load(classes: str, scenario: str) -> None:
    none_or_two = SimulateOptions(classes=classes if scenario else "", scenario=scenario, rate=1.0)

    with pytest.raises(ConfigError, match="name one load"):
        simulate(none_or_two)


def test_a_plan_names_the_smallest_fleet_and_what_one_engine_less_would_miss(classes: str) -> None:
    options = PlanOptions(classes=classes, rate=30.0, seconds=5.0, most=8, jobs=1)

    sized = plan(options)

    assert sized.engines is not None
    kept = [point.attained["asked"][0] for point in sized.choices]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] >= options.attainment
    assert (sized.fewer is None) == (sized.engines == 1)
    told = " ".join(sentences(sized, options))
    assert f"Take {sized.engines} x {options.hardware}" in told


def test_capacity_of_classes_of_ones_own_is_kept_under_what_they_said(
    classes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "QUICK", SMALL)
    options = CapacityOptions(
        classes=classes,
        systems=("slos-serve", "vllm"),
        replicas=(1,),
        attainment=(0.9,),
        quick=True,
        out=str(tmp_path / "out"),
        jobs=1,
    )

    results = capacity.measure(options)

    rates = {one.cell.system: one.rate for one in results.capacities}
    (bound,) = results.bounds
    assert results.rule == "asked"
    assert all(0 < rate <= bound.rate for rate in rates.values())
    (kept,) = (tmp_path / "out").glob("classes-*.yaml")
    assert kept.read_text() == Path(classes).read_text()
    assert {one.scenario for one in results.loads} == {f"classes:{kept}"}
