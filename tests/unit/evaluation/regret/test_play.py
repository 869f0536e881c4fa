from pathlib import Path

from services.evaluation.mix import read_mix
from services.evaluation.regret.play import BASELINES, play
from tests.unit.evaluation.regret.builders import LOAD


def test_a_load_is_played_by_all_that_can_run_on_its_fleet_and_leaves_its_file(
    tmp_path: Path,
) -> None:
    found = play(LOAD, tmp_path)

    assert [one.system for one in found.baselines] == [one for one in BASELINES if one != "dynamo"]
    assert found.ours.kept["mean"] > 0.9
    assert set(found.ours.by_class) == {"chat", "rest"}
    assert read_mix(tmp_path / f"{LOAD.key}.yaml").kinds[0].class_name == "chat"
    assert play(LOAD, tmp_path) == found
