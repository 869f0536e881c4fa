from dataclasses import replace
from pathlib import Path

from services.evaluation.point_store import FILE, PointStore
from services.evaluation.points import Bin, from_line, to_line
from tests.unit.evaluation.builders import make_point, make_task, stopped

TASK = make_task()


def test_a_point_is_read_as_it_was_written() -> None:
    bins = (Bin(from_s=0.0, admitted=1, held=2, best_effort=3, refused=4, kept=5),)
    point = replace(make_point(TASK, 0.95), timeline=bins)

    assert from_line(to_line(point)) == point


def test_what_was_added_is_there_after_a_restart(tmp_path: Path) -> None:
    PointStore(tmp_path).add(make_point(TASK, 0.95))

    assert PointStore(tmp_path).find(TASK) == make_point(TASK, 0.95)
    assert PointStore(tmp_path).find(make_task(rate=2.0)) is None


def test_what_asked_for_means_does_not_answer_for_what_asks_for_deadlines(tmp_path: Path) -> None:
    PointStore(tmp_path).add(make_point(TASK, 0.95))

    assert PointStore(tmp_path).find(replace(TASK, rule="windows")) is not None
    assert PointStore(tmp_path).find(replace(TASK, rule="deadlines")) is None


def test_a_line_that_a_kill_cut_short_is_passed_over(tmp_path: Path) -> None:
    PointStore(tmp_path).add(make_point(TASK, 0.95))
    path = tmp_path / FILE
    path.write_text(path.read_text() + to_line(make_point(make_task(rate=2.0), 0.5))[:60])

    PointStore(tmp_path).add(make_point(make_task(rate=3.0), 0.7))

    again = PointStore(tmp_path)
    assert again.find(TASK) is not None
    assert again.find(make_task(rate=2.0)) is None
    assert again.find(make_task(rate=3.0)) is not None


def test_points_of_other_code_count_only_where_that_is_asked_for(tmp_path: Path) -> None:
    PointStore(tmp_path).add(replace(make_point(TASK, 0.95), version="older"))

    assert PointStore(tmp_path).find(TASK) is None
    assert PointStore(tmp_path).outdated == 1
    assert PointStore(tmp_path, older=True).find(TASK) is not None


def test_a_point_that_ended_early_answers_only_what_it_knows(tmp_path: Path) -> None:
    store = PointStore(tmp_path)
    store.add(stopped(make_point(TASK, 0.9), at_least=0.92, at_most=0.97))

    assert store.find(replace(TASK, bars=(0.9, 0.98))) is not None
    assert store.find(replace(TASK, bars=(0.95,))) is None
    assert store.find(replace(TASK, bars=())) is None  # all of the run is asked for


def test_a_file_that_is_changed_has_another_copy(tmp_path: Path) -> None:
    store, file = PointStore(tmp_path / "out"), tmp_path / "mine.yaml"
    file.write_text("one")
    first = store.keep(str(file))
    file.write_text("two")

    copies = {name: Path(name).read_text() for name in (first, store.keep(str(file)))}

    assert sorted(copies.values()) == ["one", "two"]
    assert store.keep(str(file)) in copies
    assert store.keep("llama-3-8b-h100-80gb") == "llama-3-8b-h100-80gb"
