"""What is shown of a comparison, without engines."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from services.bench.machine import Machine
from services.bench.reality.compare import Compared, Outcome, Side
from services.bench.reality.plot import draw
from services.bench.reality.report import as_json, table


@pytest.fixture
def course() -> Any:
    """What a course has found."""
    sides = [
        Side.of([Outcome(met=True, ttft_s=ttft_s, tpot_s=0.1), Outcome(met=False)])
        for ttft_s in (0.2, 0.25)
    ]
    real, twin = sides
    one = Compared(
        system="ours",
        rate_rps=1.5,
        requests=2,
        others_cores=0.25,
        slower=1.1,
        real=real,
        twin=twin,
        runs=[twin, real],
    )
    pair = Outcome(met=True, ttft_s=0.2, tpot_s=0.1), Outcome(met=False)
    return SimpleNamespace(compared=[one], calibrated=[], requests={"ours": [pair]})


def test_both_sides_and_how_far_they_are_apart_are_told(course: Any) -> None:
    machine = Machine(cores=2, cpu="some", loads=(0.0, 0.0, 0.0))

    told = json.loads(json.dumps(as_json(course, machine, {})))

    (point,) = told["points"]
    assert (point["real"]["ttft_p50_ms"], point["simulated"]["ttft_p50_ms"]) == (200, 250)
    assert point["times_off"]["ttft_p50"] == pytest.approx(0.25)
    assert point["by_chance"]["ttft_p50"] == pytest.approx([-0.2, 0.0])
    assert point["true"] is False
    assert told["requests"]["ours"] == [{"ttft_ms": [200, None], "tpot_ms": [100, None]}]


def test_a_line_for_each_point(course: Any) -> None:
    assert table(course.compared).row_count == 1


def test_a_picture_is_drawn_of_what_both_sides_have(course: Any, tmp_path: Any) -> None:
    draw(course, tmp_path / "reality.svg")

    assert (tmp_path / "reality.svg").read_text().startswith("<?xml")
