"""`evaluate --parts regret`: drawn loads on which others may keep more, as a part of the report."""

from services.evaluation.options import RegretOptions
from services.evaluation.parts import Evaluation
from services.evaluation.regret.command import LOADS, regret

_FOLDER = "regret"  # beside the points of the other parts


def drawn_loads(evaluation: Evaluation) -> None:
    """Plays the effort's number of loads of the evaluation's seed, without a search."""
    folder = evaluation.folder / _FOLDER
    options = RegretOptions(
        loads=evaluation.effort.regret_loads,
        out=str(folder),
        seed=evaluation.seed,
        jobs=evaluation.pool.jobs,
    )
    evaluation.results.regrets = regret(options, evaluation.show("regret"))
    evaluation.results.regret_loads = str(folder / LOADS)
