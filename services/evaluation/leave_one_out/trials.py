"""One trial: a load with or without a change, and the share of its programs that ours keeps."""

from dataclasses import dataclass
from pathlib import Path

from services.evaluation.leave_one_out.change import Change
from services.evaluation.measure import measure_point
from services.evaluation.points import Task
from services.evaluation.regret.loads import RegretLoad
from services.evaluation.regret.play import play_ours
from shared.simulation.judge import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """`load` is a task of an application, or a drawn load. `key` names it and its seed."""

    key: str
    load: Task | RegretLoad
    change: Change | None = None

    @property
    def is_drawn(self) -> bool:
        return isinstance(self.load, RegretLoad)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The share of the trial's programs in time, as asked. `change`: in words; empty: none."""

    key: str
    change: str
    kept: float


def run(trial: Trial, *, folder: Path) -> Outcome:
    """Simulates a trial; files of drawn loads go into the folder. Raises ConfigError where they
    cannot be written.
    """
    if isinstance(trial.load, RegretLoad):
        kept = play_ours(trial.load, folder).kept[Rule.ASKED]
    else:
        kept, _ = measure_point(trial.load).attained[Rule.ASKED]
    change = str(trial.change) if trial.change else ""
    return Outcome(key=trial.key, change=change, kept=kept)
