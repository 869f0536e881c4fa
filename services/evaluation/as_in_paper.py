"""The paper's own comparison (SLOs-Serve, arXiv 2504.08784, section 8): ours beside its baselines
as it ran them, without drafts and in fixed settings.
"""

from collections.abc import Generator, Sequence
from typing import Final

from services.evaluation.drive import drive
from services.evaluation.parts import Evaluation
from services.evaluation.points import Point, Task
from services.evaluation.settings import Setting
from services.evaluation.study import Capacity, Cell
from services.evaluation.systems import OURS

BASELINES: Final = ("vllm-paper", "sarathi", "distserve")
_BUDGET_TOKENS: Final = 2048  # per step of vLLM


def as_in_paper(
    evaluation: Evaluation, scenarios: Sequence[str], replicas: Sequence[int], bar: float
) -> None:
    """Finds the capacity of each system by the mean rule. DistServe is tried in every split of the
    fleet.
    """
    searches = {
        f"{scenario}, {system}, {size} x": _search(evaluation, scenario, system, size, bar)
        for scenario in scenarios
        for size in replicas
        for system in (OURS, *BASELINES)
    }
    found = drive(searches, evaluation.pool, evaluation.points, evaluation.hear("paper"))
    evaluation.results.as_in_paper += list(found.values())


def _search(
    evaluation: Evaluation, scenario: str, system: str, replicas: int, bar: float
) -> Generator[Task, Point, Capacity]:
    place = evaluation.place(scenario, replicas)
    cell = Cell(scenario=scenario, system=system, replicas=replicas, bar=bar)
    settings = place.settings(system)
    labels = [label for label, one in settings.items() if system == OURS or fixed_one(one)]
    first = evaluation.rate(scenario, system, replicas, bar)
    found = yield from place.search(cell, labels, first=first)
    return place.found(cell, found)


def fixed_one(setting: Setting) -> bool:
    """Whether the paper ran a baseline in this setting: no drafts, vLLM's own budget, Sarathi's
    steps within the tightest pace.
    """
    return (
        not setting.drafts
        and setting.budget_tokens in (None, _BUDGET_TOKENS)
        and setting.pace_share in (None, 1.0)
        and setting.assumed_decodes is None
    )
