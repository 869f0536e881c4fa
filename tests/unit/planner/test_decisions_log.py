"""The file of decisions: lines that read back as what was decided, bounded in all."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from services.planner.server.decisions_log import DecisionsLog
from shared.errors import ConfigError
from shared.requests import (
    Admission,
    EngineRef,
    Explanation,
    Outcome,
    Placement,
    PlacementMode,
    PlacementOption,
    Reason,
)
from tests.unit.planner.builders import make_query

READ = TypeAdapter(Explanation)
D = EngineRef(name="d0", engine_id="d", address="here")


def decision(number: int) -> Explanation:
    return Explanation(
        query=make_query(f"r{number}"),
        placement=Placement(
            decision_id=f"d-{number}", admission=Admission.ADMITTED, reason=Reason.NONE, decode=D
        ),
        decided_at_epoch_s=1.0,
        ways=(
            PlacementOption(way=PlacementMode.COLOCATED, decode="d0", ttft_s=0.1, rejected="full"),
        ),
        outcome=Outcome(decision_id=f"d-{number}", request_id=f"r{number}", finished="stop"),
    )


def read(path: Path) -> list[Explanation]:
    return [READ.validate_json(line) for line in path.read_bytes().splitlines()]


async def test_what_is_put_is_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "decisions.jsonl"
    log = DecisionsLog.open(path, limit_bytes=1 << 20)

    log.put([decision(1), decision(2)])
    await log.write()
    log.put([decision(3)])
    await log.write()

    assert read(path) == [decision(1), decision(2), decision(3)]


async def test_a_full_file_is_set_aside_in_the_place_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = DecisionsLog.open(path, limit_bytes=1)
    for number in range(4):
        log.put([decision(number)])
        await log.write()

    assert read(path) == [decision(3)]
    assert read(tmp_path / "decisions.jsonl.1") == [decision(2)]


async def test_a_disk_that_fails_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    log = DecisionsLog.open(path, limit_bytes=1 << 20)
    path.unlink()
    path.mkdir()

    log.put([decision(1)])
    await log.write()

    assert log.dropped == 1


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        DecisionsLog.open(tmp_path / "file" / "decisions.jsonl", limit_bytes=1)
