import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from services.bench.capacity.judge import Ended, Judged, Seen
from services.bench.capacity.plot import draw
from services.bench.capacity.points import Point
from services.bench.capacity.report import tables
from services.bench.capacity.result import CapacityResult, Searched, Throughput
from services.bench.capacity.workload import Offered
from services.bench.machine import Machine
from shared.errors import ConfigError

MACHINE = Machine(cores=2, cpu="any", loads=(0.0, 0.0, 0.0))


def point(system: str, rate_rps: float, ended: Ended) -> Point:
    offered = Offered(at_s=0.0, class_name="chat", prompt_tokens=1, output_tokens=1)
    seen = Seen(offered=offered, ended=ended, token_times_s=(0.5,))
    judged = Judged(seen=seen, ttft_target_s=1.0, tpot_target_s=1.0)
    return Point(load="bursty", system=system, rate_rps=rate_rps, seconds=1.0, judged=[judged])


def measured() -> CapacityResult:
    return CapacityResult(
        machine=MACHINE,
        needed=0.9,
        overload=[point("vllm-64", 6.0, Ended.CUT), point("slos-serve", 6.0, Ended.DONE)],
        points=[
            point("vllm-64", 2.0, Ended.DONE),
            point("vllm-64", 4.0, Ended.CUT),
            point("slos-serve", 4.0, Ended.DONE),
        ],
        searched=[
            Searched(load="bursty", contender=name, variants=(variant,))
            for name, variant in (("vllm", "vllm-64"), ("slos-serve", "slos-serve"))
        ],
        throughputs=[Throughput(system="vllm-64", requests_per_s=3.0, tokens_per_s=96.0)],
    )


def test_the_tables_show_capacities_overload_and_throughput() -> None:
    out = StringIO()
    for table in tables(measured()):
        Console(file=out, width=200).print(table)
    shown = out.getvalue()

    assert "Capacity at 90% attainment" in shown
    assert "Overload, 6.00 requests/s" in shown
    assert "96.0" in shown


def test_the_json_object_has_every_point_and_both_capacities() -> None:
    shown = json.loads(json.dumps(measured().as_json()))

    assert [one["rate_rps"] for one in shown["points"]] == [2.0, 4.0, 4.0]
    assert {one["system"]: one["capacity_rps"] for one in shown["capacities"]} == {
        "vllm": 2.0,
        "slos-serve": 4.0,
    }
    assert shown["overload"][1]["ttft"]["of_target_p99"] == 0.5


@pytest.mark.parametrize("name", ["capacity.svg", "capacity.png"])
def test_the_plot_is_written_in_the_form_that_its_name_says(tmp_path: Path, name: str) -> None:
    draw(measured(), tmp_path / name)
    start = (tmp_path / name).read_bytes()[:8]

    assert start == (b"\x89PNG\r\n\x1a\n" if name.endswith("png") else b"<?xml ve")


@pytest.mark.parametrize("name", ["capacity.nothing", "no/such/folder/capacity.svg"])
def test_a_plot_that_cannot_be_written_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        draw(measured(), tmp_path / name)
