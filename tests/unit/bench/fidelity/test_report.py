"""What is shown of a comparison, without engines."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from services.bench.fidelity.compare import Compared, Outcome, Side
from services.bench.fidelity.plot import draw
from services.bench.fidelity.report import as_json, table
from services.bench.machine import Machine


@pytest.fixture
def run() -> Any:
    """What a run has found."""
    sides = [
        Side.of([Outcome(met=True, ttft_s=ttft_s, tpot_s=0.1), Outcome(met=False)])
        for ttft_s in (0.2, 0.25)
    ]
    real, simulated = sides
    one = Compared(
        system="ours",
        rate_rps=1.5,
        requests=2,
        others_cores=0.25,
        slower=1.1,
        real=real,
        simulated=simulated,
        runs=[simulated, real],
    )
    pair = Outcome(met=True, ttft_s=0.2, tpot_s=0.1), Outcome(met=False)
    return SimpleNamespace(compared=[one], calibrated=[], requests={"ours": [pair]})


def test_both_sides_and_how_far_they_are_apart_are_told(run: Any) -> None:
    machine = Machine(cores=2, cpu="some", loads=(0.0, 0.0, 0.0))

    told = json.loads(json.dumps(as_json(run, machine, {})))

    (point,) = told["points"]
    assert (point["real"]["ttft_p50_ms"], point["simulated"]["ttft_p50_ms"]) == (200, 250)
    assert point["times_off"]["ttft_p50"] == pytest.approx(0.25)
    assert point["by_chance"]["ttft_p50"] == pytest.approx([-0.2, 0.0])
    assert point["true"] is False
    assert told["requests"]["ours"] == [{"ttft_ms": [200, None], "tpot_ms": [100, None]}]


def test_a_line_for_each_point(run: Any) -> None:
    assert table(run.compared).row_count == 1


def test_a_picture_is_drawn_of_what_both_sides_have(run: Any, tmp_path: Any) -> None:
    draw(run, tmp_path / "fidelity.svg")

    assert (tmp_path / "fidelity.svg").read_text().startswith("<?xml")
