from dataclasses import replace
from pathlib import Path

from services.evaluation.parts import Evaluation
from services.evaluation.points_in_memory import PointsInMemory
from services.evaluation.regret.kept import KeptRegrets
from services.evaluation.regret.loads import draw
from services.evaluation.regret.part import drawn_loads
from services.evaluation.report import regret_tables
from services.evaluation.results import Results
from services.evaluation.scenarios import QUICK
from tests.unit.evaluation.regret.builders import regret
from tests.unit.evaluation.test_overload import Stub

LOADS = 2


def test_loads_that_were_played_are_told_and_not_played_again(tmp_path: Path) -> None:
    kept = KeptRegrets(tmp_path / "regret")
    for number in range(LOADS):
        kept.add(replace(regret(number, ours=0.5, vllm=0.75), load=draw(number, 7)))
    results = Results(effort="quick", seed=7, machine="")
    evaluation = Evaluation(
        effort=replace(QUICK, regret_loads=LOADS),
        seed=7,
        pool=Stub(),
        points=PointsInMemory(),
        results=results,
        folder=tmp_path,
        hear=lambda _part: lambda _ended, _all, _task: None,
        show=lambda _part: lambda _ended, _all, _what: None,
    )

    drawn_loads(evaluation)

    told = regret_tables(results)
    assert [one.load for one in results.regrets] == [draw(number, 7) for number in range(LOADS)]
    assert "**2 loads**" in told
    assert "| programs, asked | 25.0 | 25.0 | 25.0 | 25.0 | 0% |" in told
    assert str(tmp_path / "regret" / "loads" / f"{draw(0, 7).key}.yaml") in told
