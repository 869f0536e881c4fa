from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.evaluation.drive import drive
from services.evaluation.options import PlanOptions
from services.evaluation.plan import fleets, programs_of, sentences
from services.evaluation.points import Point, Task
from services.evaluation.points_in_memory import PointsInMemory
from services.evaluation.sizing import Sized, smallest
from services.evaluation.systems import OURS
from services.evaluation.tuning_cases import tuning_case_of
from services.evaluation.variants import setting_of
from shared.simulation.judge import Rule
from tests.unit.evaluation.builders import make_point, make_task


class Fleets:
    """Measures at once: a setting keeps everything from so many engines on."""

    jobs = 1

    def __init__(self, least: dict[str, int]) -> None:
        self.asked: list[Task] = []
        self._least, self._ready = least, list[Point]()

    def start(self, task: Task) -> None:
        self.asked.append(task)
        least = self._least[task.setting]
        share = 1 - least / 1000 if task.engines >= least else 0.5 - least / 1000
        self._ready.append(make_point(task, share, ended_s=share))

    def next(self) -> Point:
        return self._ready.pop(0)


def size(least: dict[str, int], most: int = 64) -> Sized:
    def task_of(engines: int, label: str) -> Task:
        return replace(make_task(setting=label), engines=engines, replicas=engines, bars=(0.9,))

    search = smallest(lambda _: list(least), task_of, bar=0.9, most=most)
    return drive({"": search}, Fleets(least), PointsInMemory())[""]


@settings(max_examples=40)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=4))
def test_the_smallest_fleet_that_is_enough_is_found(least: list[int]) -> None:
    named = {str(number): engines for number, engines in enumerate(least)}

    sized = size(named)

    assert sized.engines == (min(least) if min(least) <= 64 else None)
    if sized.engines:
        assert named[sized.choices[0].task.setting] == min(least)
        assert len(sized.choices) == len(least)
        assert (sized.fewer is None) == (sized.engines == 1)


def test_the_answer_names_the_fleet_the_runner_up_and_what_less_would_miss() -> None:
    options = PlanOptions(classes="mix.yaml", rate=20.0, hardware="h")

    said = list(sentences(size({"one of each": 3, "two that decode": 4}), options))

    assert said == [
        "Take 3 x h: one of each. It keeps 99.7% of all programs at 20 requests/s.",
        "Runner-up: two that decode, 49.6%; most of what it misses is by queue (3 requests).",
        (
            "With 2 the best is one of each, below 90%; most of what it misses is by queue "
            "(3 requests)."
        ),
    ]


def test_too_small_a_limit_is_said_with_what_to_do() -> None:
    options = PlanOptions(classes="mix.yaml", rate=20.0, hardware="h", most=4)

    (said,) = sentences(size({"a": 9}, most=4), options)

    assert "Not even 4 engines of h keep 90% of each class at 20 requests/s" in said
    assert "Give --most more" in said


def test_the_class_that_keeps_least_is_named_with_what_it_misses_by() -> None:
    options = PlanOptions(classes="mix.yaml", rate=20.0, hardware="h")
    point = make_point(make_task(), 0.93)
    kept, binding = (
        replace(point.classes[0], name=name, attained={rule.value: share for rule in Rule})
        for name, share in (("chat", 0.99), ("code", 0.93))
    )
    classes = (point.classes[0], kept, replace(binding, causes={"decode": 7}))
    sized = Sized(engines=1, choices=(replace(point, classes=classes),) * 2, fewer=None)

    said = list(sentences(sized, options))

    assert "93.0% of the programs of class code, and more of each other class" in said[0]
    assert "class code binds, most of what it misses is by decode (7 requests)" in said[1]


def test_the_rarest_class_is_simulated_often_enough_to_be_judged(tmp_path: Path) -> None:
    classes = tmp_path / "classes.yaml"
    one = "prompt_tokens: 500, output_tokens: 200"
    classes.write_text(f"classes: {{rare: {{share: 1, {one}}}, usual: {{share: 49, {one}}}}}")

    assert programs_of(PlanOptions(classes=str(classes), rate=1.0)) == 50 * 40


@pytest.mark.parametrize("engines", [1, 2, 4])
def test_a_plan_tries_fleets_of_exactly_the_size_that_it_asks_about(
    engines: int, tmp_path: Path
) -> None:
    classes = tmp_path / "classes.yaml"
    classes.write_text(
        "classes: {chat: {prompt_tokens: 500, output_tokens: 200, ttft_slowdown: 5, tpot_ms: 60}}"
    )
    options = PlanOptions(classes=str(classes), rate=1.0)
    case = tuning_case_of(f"classes:{classes}", options.hardware, engines, options.seed)

    labels = fleets(engines, options)

    assert labels
    assert {len(setting_of(OURS, label, case).roles) for label in labels} == {engines}
