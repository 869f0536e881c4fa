"""Loads that others published: which there are, how they are counted and told."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from services.evaluation.measure import measure_point
from services.evaluation.outsiders import loads_of
from services.evaluation.outsiders_report import outsiders_table
from services.evaluation.points import Task
from services.evaluation.results import Outsider, Results
from services.evaluation.scenarios import least_programs, load_of, shown_name
from services.evaluation.settings import Setting
from services.evaluation.study import Capacity, Cell
from shared.simulation.judge import Rule
from tests.unit.shared.workloads.test_agent_sessions import HEAD
from tests.unit.shared.workloads.test_inference_perf import workload


def make_data(folder: Path) -> str:
    (folder / "workloads").mkdir()
    (folder / "traces").mkdir()
    chat = folder / "workloads" / "inference-perf_chat.json"
    chat.write_text(json.dumps(workload()))
    batch = folder / "workloads" / "inference-perf_nightly.json"
    batch.write_text(json.dumps(workload(metadata={})))
    rows = [HEAD, "1,0,0.0,1000,20,0,,0", "1,1,9.0,1200,30,1000,4.0,0"]
    sessions = folder / "traces" / "agent_sessions.csv.gz"
    sessions.write_bytes(gzip.compress("\n".join(rows).encode()))
    return str(folder)


def test_without_their_files_loads_are_left_out_with_a_line_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = list(loads_of(""))

    assert [shown_name(one.scenario) for one in found] == ["MLPerf Llama-3.1-8B interactive"]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert all(line.startswith("left out: ") and "--data" in line for line in told)


def test_loads_that_say_what_they_ask_for_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, chat, agents = loads_of(make_data(tmp_path))

    assert (shown_name(chat.scenario), chat.share) == ("inference-perf_chat", 0.95)
    assert agents.share == 0.95
    assert "inference-perf_nightly" in capsys.readouterr().err


def test_their_loads_are_generated_at_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    for one in loads_of(make_data(tmp_path)):
        load = load_of(one.scenario, rate=4.0, programs=40, seed=1)

        assert least_programs(one.scenario) <= len(load) == 40
        assert (len(load) - 1) / load[-1].arrives_s == pytest.approx(4.0)


@pytest.mark.parametrize("rate", [0.1, 3.0])
def test_by_request_each_request_counts_for_itself(rate: float) -> None:
    task = Task(
        scenario="ToolLLM",
        hardware="toolllama-2-7b-a100-40gb",
        system="slos-serve",
        setting=Setting().label,
        replicas=1,
        engines=1,
        rate=rate,
        programs=40,
        seed=1,
        bars=(),
        by_request=True,
    )

    whole = measure_point(task)
    early = measure_point(replace(task, bars=(0.9,)))

    all_requests = whole.classes[0]
    assert all_requests.requests > 40
    assert {rule.value: whole.attained[rule][0] for rule in Rule} == pytest.approx(
        all_requests.attained
    )
    assert early.passes("mean", 0.9) is whole.passes("mean", 0.9)
    assert early.bounds("mean").at_least <= all_requests.attained["mean"] + 1e-9
    assert early.bounds("mean").at_most >= all_requests.attained["mean"] - 1e-9


def test_each_rule_has_a_line_of_its_own() -> None:
    def found(system: str, rule: str, rate: float) -> Capacity:
        cell = Cell(scenario="x", system=system, replicas=1, bar=0.99, rule=rule)
        return Capacity(cell=cell, rate=rate, failed=2 * rate, setting="s", points=1)

    one = Outsider(
        scenario="catalog:8192:folder/inference-perf_chat.json",
        hardware="llama-3-8b-h100-80gb",
        share=0.99,
        scale=0.25,
        bound=8.0,
        capacities=(
            found("slos-serve", "windows", 3.0),
            found("vllm", "windows", 2.0),
            found("slos-serve", "deadlines", 4.0),
        ),
    )

    told = outsiders_table(Results(effort="full", seed=1, machine="", outsiders=[one]))

    start = "| inference-perf_chat | x 0.25 | llama-3-8b-h100-80gb | 99% |"
    assert f"{start} windows | 3 | 2 | 1.50 x (vllm) | 8 |" in told
    assert f"{start} deadlines | 4 | not run | - | 8 |" in told
