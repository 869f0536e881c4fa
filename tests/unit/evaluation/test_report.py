import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from services.evaluation.as_in_paper import BASELINES, fixed_one
from services.evaluation.claims_report import claims_table, paper_tables
from services.evaluation.figures import figures
from services.evaluation.files import json_of
from services.evaluation.markdown import NOT_RUN
from services.evaluation.output import replaced, write_document, write_report
from services.evaluation.page import page
from services.evaluation.points import Bin
from services.evaluation.report import (
    ablation_table,
    capacity_tables,
    scaling_table,
    settings_table,
    whole_report,
)
from services.evaluation.results import Bound, Burst, Load, Results, Scale
from services.evaluation.study import Capacity, Cell
from services.evaluation.tuning_cases import tuning_case_of
from services.evaluation.variants import settings_of
from shared.errors import ConfigError
from shared.simulation.judge import Rule


def found(scenario: str, system: str, rate: float, replicas: int = 1) -> Capacity:
    cell = Cell(scenario=scenario, system=system, replicas=replicas, bar=0.9)
    return Capacity(cell=cell, rate=rate, failed=1.1 * rate, setting="two | of them", points=9)


def load(system: str, rate: float) -> Load:
    return Load(
        scenario="ChatBot",
        system=system,
        setting="s",
        rate=rate,
        attained={"mean": 0.9},
        ttft_s=(0.1, 0.2),
        tpot_s=(0.01, 0.02),
        batches=(1,) * 15,
    )


def make_results() -> Results:
    timeline = (Bin(from_s=0.0, admitted=5, held=1, best_effort=2, refused=0, kept=6),)
    return Results(
        effort="full",
        seed=1,
        machine="2 cores.",
        capacities=[
            found("ChatBot", "slos-serve", 4.0),
            found("ChatBot", "vllm", 2.0),
            found("ChatBot", "sarathi", 1.0),
            found("Coder", "slos-serve", 2.0),
            found("Coder", "vllm", 0.25),
            found("Coder", "sarathi", 0.5),
        ],
        bounds=[Bound(scenario="ChatBot", replicas=1, bar=0.9, rate=8.0)],
        loads=[load("slos-serve", 4.0), load("vllm", 4.0)],
        ablations=[
            found("ChatBot", "slos-serve", 4.0, 2),
            found("ChatBot", "slos-serve: round robin", 3.2, 2),
        ],
        bursts=[
            Burst(
                system="slos-serve",
                setting="s",
                rate=2.0,
                bin_s=0.5,
                attained=0.91,
                ttft_share=0.98,
                tpot_share=0.7,
                timeline=timeline,
            )
        ],
        scaling=[
            Scale(scenario="Coder", replicas=1, rate=2.0, decision_ms=(0.5, 3.0, 1.0)),
            Scale(scenario="Coder", replicas=4, rate=3.0, decision_ms=(1.0, 6.0, 2.0)),
        ],
        points=77,
        measured_s=120.0,
    )


GOLDEN = """\
**1 replica, 90% of programs kept, programs/s for each GPU**

| scenario | slos-serve | vllm | sarathi | ours / best baseline | upper bound | ours of it |
| --- | --- | --- | --- | --- | --- | --- |
| ChatBot | 4 | 2 | 1 | 2.00 x (vllm) | 8.00 | 50% |
| Coder | 2 | 0.25 | 0.5 | 4.00 x (sarathi) |  |  |

Ours / best baseline as geometric mean: 2.83; ahead in 2 of 2 scenarios."""


def test_capacities_are_told_as_they_were_found() -> None:
    assert capacity_tables(make_results()) == GOLDEN


@pytest.mark.parametrize("rule", [Rule.WINDOWS, Rule.DEADLINES, Rule.ASKED])
def test_tables_and_figures_are_of_the_rule_that_decides(rule: Rule) -> None:
    results = replace(make_results(), rule=rule)
    assert capacity_tables(results) == settings_table(results) == NOT_RUN

    results.capacities = [
        replace(one, cell=replace(one.cell, rule=rule)) for one in results.capacities
    ]
    results.loads = [replace(one, attained={rule: 0.9}) for one in results.loads]

    head, told = capacity_tables(results).split("\n", 1)
    assert rule in head
    assert told == GOLDEN.split("\n", 1)[1]
    assert {"capacity", "attainment"} <= set(figures(results))
    assert settings_table(results) == settings_table(make_results())


def test_nothing_beside_nothing_is_not_even() -> None:
    results = make_results()
    results.capacities = [replace(one, rate=0.0) for one in results.capacities[:3]]

    told = capacity_tables(results)

    assert "| ChatBot | 0 | 0 | 0 | - (vllm) | 8.00 | 0% |" in told
    assert "No mean" in told


def test_what_is_no_number_is_null_in_json() -> None:
    assert json_of({Rule.MEAN: [float("nan"), 1.5]}) == '{"mean":[null,1.5]}'


def test_a_load_from_a_file_is_called_by_its_name() -> None:
    results = make_results()
    results.capacities = [found("classes:folder/mine-0a1b.yaml", "slos-serve", 4.0)]

    assert "| mine-0a1b |" in capacity_tables(results)
    assert "| mine-0a1b |" in settings_table(results)


def test_ablations_tell_what_a_part_is_worth() -> None:
    assert "| round robin | 3.2 (1.25 x) | 1.25 x |" in ablation_table(make_results())


def test_scaling_is_told_as_a_multiple_of_one_replica() -> None:
    assert "| Coder | 4 | 3 | 6.00 x | 1.00 | 6.00 | 2.00 |" in scaling_table(make_results())


def test_claims_stand_beside_what_was_measured() -> None:
    told = claims_table(make_results())

    assert "| what routing is worth | 1.19 x (Coder 1.92) | 1.25 x (ChatBot 1.25 x) |" in told
    assert "| up to 6.2 (Coder), 4.6 ChatBot | Coder 6.00 x |" in told
    assert "rounds p50 / p99, 1 x: 0.5 / 3.0 ms, 4 x: 1.0 / 6.0 ms" in told


def test_the_papers_baselines_as_it_ran_them_have_a_table_of_their_own() -> None:
    results = make_results()
    results.as_in_paper = [
        found("Coder", "slos-serve", 6.0, 4),
        found("Coder", "vllm-paper", 2.0, 4),
        found("Coder", "sarathi", 3.0, 4),
    ]

    told = paper_tables(results)

    assert "| Coder | 6 | 2 | 3 | 2.00 x (sarathi) |" in told
    assert "| the same beside its baselines as it ran them, 4 replicas | 2.2 x | Ours / best " in (
        claims_table(results)
    )


def test_the_papers_baselines_draft_nothing() -> None:
    case = tuning_case_of("ChatBot", "opt-7b-a100-40gb", 1, 1)
    chosen = {
        system: [one.label for one in settings_of(system, case).values() if fixed_one(one)]
        for system in BASELINES
    }

    assert chosen["vllm-paper"] == ["no drafts, steps of 2048 tokens"]
    assert chosen["sarathi"] == ["no drafts, 1 of the tightest pace"]
    assert all("no drafts" in label for label in chosen["distserve"])
    assert len(chosen["distserve"]) > 1  # splits of the fleet


def test_what_was_not_run_says_so() -> None:
    empty = Results(effort="full", seed=1, machine="m")

    told = whole_report(empty)

    assert told.count(NOT_RUN) >= 12
    assert not re.search(r"\d x ", told.partition("## Ablations")[2])
    assert figures(empty) == {}


def test_no_mean_is_made_of_what_is_nothing() -> None:
    results = make_results()
    results.capacities[4:] = [replace(one, rate=0.0) for one in results.capacities[4:]]

    assert "nothing else carries it" in capacity_tables(results)
    assert "No mean" in capacity_tables(results)


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    results = make_results()
    drawn = figures(results)

    text = page("a < b", whole_report(results), drawn)

    assert set(drawn) == {"capacity", "attainment", "bursts", "batches", "ablations", "scaling"}
    assert text.count("<svg") == len(drawn)
    assert "a &lt; b" in text
    assert "two | of them" in text
    assert not re.search(r"""(src|href)=["'](?!#)""", re.sub(r'xlink:href="#[^"]*"', "", text))
    for svg in drawn.values():
        ET.fromstring(svg)
    assert [path.name for path in write_report(results, tmp_path)] == [
        "report.md",
        "report.json",
        "report.html",
    ]


def test_figures_are_the_same_for_the_same_results() -> None:
    assert figures(make_results())["scaling"] == figures(make_results())["scaling"]


def test_prose_between_marks_stays_and_what_is_marked_is_made_anew(tmp_path: Path) -> None:
    document = tmp_path / "evaluation.md"
    document.write_text(
        "by hand\n<!-- made: capacity -->\nold\n<!-- end -->\nmore\n"
        "<!-- made: figure-scaling -->\n<!-- end -->\n"
    )

    write_document(make_results(), document)
    once = document.read_text()
    write_document(make_results(), document)

    assert document.read_text() == once
    assert once.startswith(f"by hand\n<!-- made: capacity -->\n{GOLDEN}\n<!-- end -->\nmore\n")
    assert "![scaling](evaluation/scaling.svg)" in once
    assert (tmp_path / "evaluation" / "scaling.svg").read_text().startswith("<svg")


def test_an_unknown_mark_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing is made under the mark capacitty"):
        replaced("<!-- made: capacitty -->\n<!-- end -->", {"capacity": ""})
