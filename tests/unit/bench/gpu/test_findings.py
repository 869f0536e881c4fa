import json
from pathlib import Path

import pytest

from services.bench.gpu.asking import Told, same
from services.bench.gpu.findings import Finding, GpuResult, StepResult, Verdict
from services.bench.gpu.notebook import Notebook

GOOD = Finding.of("fit", True, "p50 2 %", p50_percent=2.0, by_kind={"decode": 1.5})
BAD = Finding.of("recomputed", False, "2 of 3 | same")
SKIPPED = Finding(name="load", verdict=Verdict.SKIPPED, words="no time")


def result(*findings: Finding) -> GpuResult:
    step = StepResult(step="answers", took_s=61.2, findings=findings)
    return GpuResult(device="cuda", machine={"cpu": "some CPU"}, options={}, results=[step])


@pytest.mark.parametrize(
    ("findings", "good"),
    [((GOOD,), True), ((GOOD, BAD), False), ((GOOD, SKIPPED), False)],
)
def test_a_check_is_good_where_every_finding_passed(
    findings: tuple[Finding, ...], good: bool
) -> None:
    assert result(*findings).is_good is good
    assert result(*findings).as_json()["passed"] is good


def test_the_page_has_a_row_for_each_finding_and_its_figures() -> None:
    page = result(GOOD, BAD).as_markdown()

    assert "| answers | fit | passed | 61 | p50 2 % |" in page
    assert "| answers | recomputed | failed |  | 2 of 3 / same |" in page
    assert "| p50_percent | 2 |" in page
    assert "| by_kind | decode 1.5 |" in page


def test_the_json_object_can_be_written() -> None:
    assert json.loads(json.dumps(result(GOOD).as_json()))["steps"][0]["findings"][0]["name"]


def test_findings_of_a_step_that_was_cut_off_are_kept_but_for_the_line_it_was_writing(
    tmp_path: Path,
) -> None:
    notebook = Notebook(path=tmp_path / "answers.jsonl")
    assert notebook.read() == []

    notebook.note(GOOD)
    notebook.note(BAD)
    with notebook.path.open("a") as file:
        file.write('{"name": "half')

    assert notebook.read() == [GOOD, BAD]


def told(*tokens: int) -> Told:
    return Told(tokens=tokens, report={})


def test_answers_that_differ_are_told_by_where_they_first_do() -> None:
    expected = [told(1, 2, 3), told(4, 5, 6), told(7, 8, 9)]

    assert same(expected, expected) == (3, [])
    assert same(expected, [told(1, 2, 3), told(4, 0, 6), told(7, 8)]) == (1, [1, 2])
