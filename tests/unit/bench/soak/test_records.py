"""A soak test on disk: both sides read back, and every answer with its decision."""

from pathlib import Path

import orjson
import pytest

from services.bench.kept_run import DECISIONS
from services.bench.soak.records import (
    SoakResult,
    keep_answers,
    matched,
    name_of,
    number_of,
    read_soak,
)
from shared.errors import ConfigError
from shared.requests import Explanation
from tests.unit.bench.soak.requests import judged, outcome, record, sums


def keep_decisions(path: Path, *decisions: Explanation) -> None:
    path.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in decisions))


def test_a_run_that_was_recorded_is_read_back_with_the_file_that_was_set_aside(
    tmp_path: Path,
) -> None:
    answers = [judged(0.5), judged(2.0)]
    first, second = record(outcome(), before=sums()), record(None, number=1)
    keep_answers(tmp_path, answers)
    keep_decisions(tmp_path / f"{DECISIONS}.1", first)
    keep_decisions(tmp_path / DECISIONS, second)

    soak = read_soak(tmp_path)

    assert [one.judged for one in soak.requests] == answers
    assert [one.record for one in soak.requests] == [first, second]


def test_no_answer_is_dropped_and_decisions_of_others_are_counted() -> None:
    other = record(outcome(), number=7)
    twice = [record(None, number=1), record(None, number=1)]  # it moved

    soak = matched({0: judged(0.5), 1: judged(2.0)}, [*twice, other])

    assert [one.record is None for one in soak.requests] == [True, False]
    assert soak.others == 1


def test_a_folder_without_a_day_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--records"):
        read_soak(tmp_path)


def test_the_name_of_a_request_leads_back_to_its_number() -> None:
    assert number_of(record(None, number=41)) == 41
    assert number_of(record(None, client_id="a-soak-41")) is None
    assert name_of(41) == "soak-41"
    assert number_of(record(None, client_id="day-41")) == 41
    assert matched({}, []) == SoakResult(requests=[])
