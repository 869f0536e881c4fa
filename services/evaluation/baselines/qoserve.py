"""QoServe or Niyama (arXiv 2503.22562): chunks by slack, order by deadline, eager relegation."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from services.evaluation.baselines import deadline
from services.evaluation.baselines.baseline import Baseline, StepFormer
from services.evaluation.baselines.routers import LeastLoaded
from services.evaluation.baselines.vllm import budgets
from services.evaluation.settings import Setting, TuningCase, colocated
from shared.simulation.engine import SimEngine
from shared.workloads.calls import Load

_ALPHAS_S = (0.0, 0.001, 0.008)  # 0: by deadline alone; the paper has 8 ms
_MOST_TOKENS = 2560  # the authors' longest step, in whole grains


def settings(case: TuningCase) -> Iterator[Setting]:
    """Settings with different weights of the work left, relative to the deadline."""
    for setting in colocated(case):
        for alpha_s in _ALPHAS_S:
            (budget,) = case.budgets(_MOST_TOKENS)
            yield replace(setting, alpha_s=alpha_s, budget_tokens=budget)


def build(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Baseline:  # noqa: ARG001 - as all builders
    """Relegated requests still count as promised and are judged by what they get."""
    assert setting.alpha_s is not None
    return Baseline(
        LeastLoaded(),
        by_deadline(setting.alpha_s),
        drafts=setting.drafts,
        budget_tokens=budgets(setting, engines),
    )


def by_deadline(alpha_s: float) -> StepFormer:
    """Steps that take prompts by deadline and work left."""
    return lambda rows, tokens, counts, table, limits, now: deadline.form(
        rows, tokens, counts, table, limits, now, alpha_s
    )
