"""`evaluate --parts leave-one-out`: every tuned number halved and doubled, on the same loads.

Where both changes of a number are within noise on all loads, its rule may be removed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from services.evaluation.drive import drive
from services.evaluation.leave_one_out.change import Change, begin, changes_of, numbers
from services.evaluation.leave_one_out.effects import ChangeEffect, effect_of
from services.evaluation.leave_one_out.kept import KeptOutcomes
from services.evaluation.leave_one_out.trials import Trial, run
from services.evaluation.parts import Evaluation
from services.evaluation.points import rounded
from services.evaluation.regret.loads import draw
from services.evaluation.scenarios import scenario_names
from services.evaluation.settings import Setting
from services.evaluation.study import Cell
from services.evaluation.systems import OURS
from services.evaluation.workers import workers
from shared.errors import ConfigError
from shared.simulation.judge import Rule
from shared.spelling import nearest
from shared.tuning import TunedNumber

_REPLICAS: Final = 2  # the fewest among which a request is placed
_PROGRAMS: Final = 250  # of an application's trial: its share kept is then within 2 points
_DRAWN: Final = 8  # loads
_FOLDER: Final = "leave-one-out"  # beside the points of the other parts


def leave_one_out(evaluation: Evaluation, bar: float) -> None:
    """Plays all loads without a change, then with each change of the evaluation's numbers. Raises
    ConfigError for an unknown number before anything is played.
    """
    chosen = chosen_numbers(evaluation.numbers)
    folder = evaluation.folder / _FOLDER
    kept = KeptOutcomes(folder, older=evaluation.older)
    trials = [*_applications(evaluation, bar), *_drawn(evaluation)]
    changes = [(one, change) for one in chosen for change in changes_of(one)]
    told = evaluation.show("leave-one-out")
    for done, change in enumerate((None, *(change for _, change in changes))):
        _play(trials, change, evaluation.pool.jobs, kept, folder)
        told(done, len(changes), str(change) if change else "unchanged")
    evaluation.results.effects += [_effect(one, change, trials, kept) for one, change in changes]


def chosen_numbers(names: Sequence[str]) -> list[TunedNumber]:
    """The numbers of these names, or all. Raises ConfigError with the nearest name."""
    known = {one.name: one for one in numbers()}
    for name in names:
        if name not in known:
            raise ConfigError(f"--numbers {name}: unknown{nearest(name, known)}")
    return [known[name] for name in names] if names else list(known.values())


def _applications(evaluation: Evaluation, bar: float) -> Iterator[Trial]:
    """Each application at the rate where ours keeps just the share `bar`, with every seed."""
    places = [evaluation.place(scenario, _REPLICAS) for scenario in scenario_names()]
    labels = [_colocated(place.settings(OURS)) for place in places]
    cells = [
        Cell(scenario=one.scenario, system=OURS, replicas=_REPLICAS, bar=bar) for one in places
    ]
    searches = {
        cell.scenario: place.search(cell, [label])
        for cell, place, label in zip(cells, places, labels, strict=True)
    }
    found = drive(searches, evaluation.pool, evaluation.points, evaluation.hear("rates"))
    for place, label in zip(places, labels, strict=True):
        task = place.task(OURS, label, rounded(found[place.scenario].rate))
        for seed in _seeds(evaluation):
            yield Trial(
                key=f"{place.scenario} at {task.rate:g}/s, seed {seed}",
                load=replace(
                    task,
                    programs=_PROGRAMS,
                    seed=seed,
                    rule=Rule.ASKED.value,
                    bars=(),
                ),
            )


def _colocated(settings: dict[str, Setting]) -> str:
    """The setting with drafts in which all engines decode."""
    colocated = {label: one for label, one in settings.items() if not one.prefill}
    return max(colocated, key=lambda label: colocated[label].drafts)


def _drawn(evaluation: Evaluation) -> Iterator[Trial]:
    for number in range(_DRAWN):
        load = draw(number, evaluation.seed)
        for seed in _seeds(evaluation):
            again = replace(load, seed=load.seed + seed)
            yield Trial(key=f"load {number} of {evaluation.seed}, seed {seed}", load=again)


def _seeds(evaluation: Evaluation) -> range:
    return range(evaluation.seed, evaluation.seed + evaluation.effort.seeds)


def _play(
    trials: Sequence[Trial], change: Change | None, jobs: int, kept: KeptOutcomes, folder: Path
) -> None:
    """Runs the trials that are not known yet, in processes that have the change."""
    left = [one for one in trials if kept.find(one.key, change) is None]
    if not left:
        return
    changed = partial(begin, [change] if change else [], str(folder / "kernels"))
    with workers(jobs, partial(run, folder=folder), begin=changed) as pool:
        for one in left:
            pool.start(replace(one, change=change))
        for _ in left:
            kept.add(pool.next())


def _effect(
    number: TunedNumber, change: Change, trials: Sequence[Trial], kept: KeptOutcomes
) -> ChangeEffect:
    effects = {}
    for drawn in (False, True):
        keys = [one.key for one in trials if one.is_drawn is drawn]
        effects[drawn] = effect_of(_shares(kept, keys, change), _shares(kept, keys, None))
    return ChangeEffect(
        number=number.name,
        was=number.value,
        value=change.value,
        applications=effects[False],
        drawn=effects[True],
    )


def _shares(kept: KeptOutcomes, keys: Sequence[str], change: Change | None) -> list[float]:
    found = [kept.find(key, change) for key in keys]
    return [one for one in found if one is not None]
