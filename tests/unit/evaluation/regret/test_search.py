from dataclasses import replace
from pathlib import Path

import pytest

from services.evaluation.regret.kept import FILE, KeptRegrets
from services.evaluation.regret.report import distribution, replay, throughput, whole
from services.evaluation.regret.search import Search, worst
from shared.errors import ConfigError
from tests.unit.evaluation.regret.builders import LOAD, regret

FIRST = regret(1, ours=0.9, vllm=0.8)
SECOND = regret(2, ours=0.5, vllm=0.6, qoserve=0.7)


def test_regret_is_what_the_best_of_the_others_keeps_more() -> None:
    assert FIRST.points() == pytest.approx(-10)
    assert SECOND.points() == pytest.approx(20)
    assert SECOND.best.system == "qoserve"
    assert SECOND.worst_class_points == pytest.approx(20)
    assert SECOND.beside_vllm == pytest.approx(1.25)
    assert worst([FIRST, SECOND], 1) == [SECOND]


def test_a_class_alone_is_the_worst_class() -> None:
    alone = {"all": 0.25}
    ours = replace(SECOND.ours, by_class=alone)
    others = tuple(replace(one, by_class={"all": 0.75}) for one in SECOND.baselines)

    found = replace(SECOND, ours=ours, baselines=others)

    assert found.worst_class_points == pytest.approx(50)


def test_a_search_draws_its_loads_and_then_looks_near_the_worst_until_its_time_is_over() -> None:
    now = 0.0
    search = Search(seed=3, loads=2, until_s=10.0, clock=lambda: now)
    named = iter(search)
    drawn = [next(named), next(named)]
    search.add(FIRST)
    search.add(SECOND)
    others = [next(named) for _ in range(8)]
    now = 10.0

    assert drawn[0].key != drawn[1].key
    assert {one.hardware for one in others} == {LOAD.hardware}
    assert not {one.key for one in others} & {FIRST.load.key, SECOND.load.key}
    assert next(named, None) is None


def test_without_hours_a_search_ends_with_its_sample() -> None:
    assert len(list(Search(seed=3, loads=2, until_s=0.0, clock=lambda: 1.0))) == 2


def test_loads_that_were_played_are_kept_and_a_line_that_was_cut_is_passed_over(
    tmp_path: Path,
) -> None:
    kept = KeptRegrets(tmp_path)
    kept.add(FIRST)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'\n{"version": "')
    KeptRegrets(tmp_path).add(SECOND)

    again = KeptRegrets(tmp_path)
    assert again.find(FIRST.load.key) == FIRST
    assert again.find(SECOND.load.key) == SECOND
    assert again.find("unknown") is None


def test_loads_of_another_version_are_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KeptRegrets(tmp_path).add(FIRST)
    monkeypatch.setattr("services.evaluation.regret.kept.version_of", lambda system: system)

    assert KeptRegrets(tmp_path).find(FIRST.load.key) is None


def test_a_folder_that_cannot_be_used_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--out"):
        KeptRegrets(tmp_path / "file")


def test_a_report_has_the_distribution_and_the_command_that_replays_each_of_the_worst() -> None:
    report = whole([FIRST, SECOND], Path("loads"))

    assert "| programs, asked | 5.0 |" in distribution([FIRST, SECOND])
    assert "| 20.0 | 50.0% | 70.0% (qoserve: any)" in report
    assert f"--classes loads/{SECOND.load.key}.yaml" in replay(SECOND, Path("loads"))
    undrafted = replace(SECOND, load=replace(SECOND.load, drafts=False))
    assert replay(undrafted, Path("loads")).endswith("--system all --no-drafts")
    assert throughput([FIRST, SECOND]) == ""
    assert whole([], Path("loads")) == "No load was played."
