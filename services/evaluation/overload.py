"""Load beyond capacity: what each system still serves in time, and whether a refused request is
promised when it comes back at the time named.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from services.evaluation.drive import drive
from services.evaluation.parts import Evaluation
from services.evaluation.points import Point, Task, rounded
from services.evaluation.results import Overload, Retried
from services.evaluation.search import Search
from services.evaluation.study import fixed
from services.evaluation.systems import OURS
from services.evaluation.variants import ablated
from shared.simulation.judge import Rule

MULTIPLES: Final = (0.8, 1.0, 1.5, 2.0, 3.0, 5.0)  # of our capacity
RETRIED: Final = (1.2, 1.5, 2.0, 3.0)
SCENARIOS: Final = ("Mixed", "ToolLLM")  # three classes together; programs of many calls
FIXED_S: Final = 1.0  # the wait of a client that ignores `Retry-After`
_AS_NAMED_S: Final = 0.0  # of `Task.retry_s`
CALM: Final = 0.8  # of our capacity, after an overload
_REFUSES: Final = ablated("no best effort")


def overload(evaluation: Evaluation, systems: Sequence[str], bar: float) -> None:
    """Runs every system at multiples of our capacity, on one replica."""
    searches = {
        f"{scenario}, {system}": fixed(_tasks(evaluation, scenario, system, MULTIPLES, bar))
        for scenario in SCENARIOS
        for system in systems
    }
    found = _driven(evaluation, searches, "overload")
    for scenario in SCENARIOS:
        for system in systems:
            points = found[f"{scenario}, {system}"]
            evaluation.results.overloads += [
                _overload(evaluation, multiple, point)
                for multiple, point in zip(MULTIPLES, points, strict=True)
            ]


def retries(evaluation: Evaluation, bar: float) -> None:
    """Runs ours with clients that take no best effort and retry once when they are refused: after
    the time that the answer names, and after a fixed one. The overload lasts as long as the load,
    or ends half-way.
    """
    searches = {
        f"{scenario}, {calm:g}, {wait_s:g}": fixed(
            _retrying(evaluation, scenario, calm, wait_s, bar)
        )
        for scenario in SCENARIOS
        for calm in (0.0, CALM)
        for wait_s in (_AS_NAMED_S, FIXED_S)
    }
    found = _driven(evaluation, searches, "retries")
    for scenario in SCENARIOS:
        for calm in (0.0, CALM):
            as_named = found[f"{scenario}, {calm:g}, {_AS_NAMED_S:g}"]
            after_fixed = found[f"{scenario}, {calm:g}, {FIXED_S:g}"]
            evaluation.results.retries += [
                Retried(
                    scenario=scenario,
                    multiple=multiple,
                    ends=calm > 0,
                    named=named.retries,
                    fixed=other.retries,
                )
                for multiple, named, other in zip(RETRIED, as_named, after_fixed, strict=True)
                if named.retries and other.retries
            ]


def _retrying(
    evaluation: Evaluation, scenario: str, calm: float, wait_s: float, bar: float
) -> list[Task]:
    """Tasks with retries. `calm`: the multiple of our capacity after the overload; 0: it does not
    end.
    """
    return [
        replace(
            task, system=_REFUSES, retry_s=wait_s, calm_rate=rounded(task.rate * calm / multiple)
        )
        for multiple, task in zip(
            RETRIED, _tasks(evaluation, scenario, OURS, RETRIED, bar), strict=True
        )
    ]


def _tasks(
    evaluation: Evaluation, scenario: str, system: str, multiples: Sequence[float], bar: float
) -> list[Task]:
    """Tasks at these multiples. Beyond capacity they have more programs, so that an overload lasts
    as long as the load at capacity.
    """
    place = evaluation.place(scenario, 1)
    setting = evaluation.setting(scenario, system, 1)
    capacity = evaluation.rate(scenario, OURS, 1, bar)
    tasks = [(one, place.task(system, setting, rounded(capacity * one))) for one in multiples]
    return [
        replace(task, programs=round(task.programs * max(1.0, one)), rule=Rule.ASKED.value, bars=())
        for one, task in tasks
    ]


def _driven(
    evaluation: Evaluation, searches: dict[str, Search], part: str
) -> dict[str, tuple[Point, ...]]:
    found = drive(searches, evaluation.pool, evaluation.points, evaluation.hear(part))
    return {name: one.points for name, one in found.items()}


def _overload(evaluation: Evaluation, multiple: float, point: Point) -> Overload:
    return Overload(
        scenario=point.task.scenario,
        system=point.task.system,
        setting=point.task.setting,
        multiple=multiple,
        rate=evaluation.for_each_gpu(point.task),
        programs=point.task.programs,
        kept=point.attained[Rule.ASKED][0],
        classes=point.classes,
    )
