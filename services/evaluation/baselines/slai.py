"""SLAI (arXiv 2508.01002): decodes run when they must, prompts get the rest of the budget."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from services.evaluation.baselines import last_moment
from services.evaluation.baselines.baseline import Baseline
from services.evaluation.baselines.routers import LeastLoaded
from services.evaluation.baselines.vllm import budgets
from services.evaluation.settings import Setting, TuningCase, colocated
from shared.batch_time.table import FloatArray
from shared.scheduling.rows import Rows
from shared.scheduling.shares import Tokens
from shared.simulation.engine import SimEngine
from shared.workloads.calls import Load

_BUDGETS_TOKENS = (512, 2048)  # the paper's, and other systems' default
_EARLY_STEPS = (1.0, 5.0)  # the least that keeps a pace, and the paper's


def settings(case: TuningCase) -> Iterator[Setting]:
    """Waiting prompts in its authors' three orders: by arrival, the shortest first, and where paces
    differ the shortest of the tightest pace first.
    """
    paces = {stage.tpot_s for one in case.load for call in one.calls for stage in call.stages}
    orders = [(None, None), (True, None), (True, True)][: 3 if len(paces) > 1 else 2]
    budgets_tokens = case.budgets(*_BUDGETS_TOKENS)
    for setting in colocated(case):
        ways = itertools.product(budgets_tokens, _EARLY_STEPS, orders)
        for budget, early_steps, (shortest_first, by_priority) in ways:
            yield replace(
                setting,
                budget_tokens=budget,
                early_steps=early_steps,
                shortest_first=shortest_first,
                by_priority=by_priority,
            )


def build(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Baseline:  # noqa: ARG001 - as all builders
    """Routes to the engine with the least load."""
    assert setting.early_steps is not None
    former = LastMoment(
        setting.early_steps,
        shortest_first=bool(setting.shortest_first),
        tight_first=bool(setting.by_priority),
    )
    return Baseline(
        LeastLoaded(),
        former,
        drafts=setting.drafts,
        budget_tokens=budgets(setting, engines),
    )


class LastMoment:
    """A StepFormer in which decodes must run from `early_steps` mean steps before they are due. The
    mean is over all steps so far, in seconds by the table.
    """

    def __init__(self, early_steps: float, *, shortest_first: bool, tight_first: bool) -> None:
        self._early_steps = early_steps
        self._shortest_first, self._tight_first = shortest_first, tight_first
        self._steps, self._lasted_s = 0, 0.0

    def __call__(
        self,
        rows: Rows,
        tokens: Tokens,
        counts: FloatArray,
        table: FloatArray,
        limits: FloatArray,
        now: float,
    ) -> float:
        early_s = self._early_steps * self._lasted_s / max(1, self._steps)
        order = self._shortest_first, self._tight_first
        lasts_s = last_moment.form(rows, tokens, counts, table, limits, now, early_s, *order)
        if lasts_s > 0:
            self._steps, self._lasted_s = self._steps + 1, self._lasted_s + lasts_s
        return float(lasts_s)
