"""DistServe (arXiv 2401.09670): prompts always on prefill engines, decodes on decode engines."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from services.evaluation.baselines.baseline import Baseline
from services.evaluation.baselines.routers import Split
from services.evaluation.baselines.vllm import whole_prompts
from services.evaluation.settings import Setting, TuningCase, disaggregated
from shared.simulation.engine import SimEngine
from shared.workloads.calls import Load


def settings(case: TuningCase) -> Iterator[Setting]:
    """Settings with every split; prompts are batched up to the tokens that saturate an engine."""
    for setting in disaggregated(case):
        for budget in case.budgets(2048, 8192):
            yield replace(setting, budget_tokens=budget)


def build(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Baseline:  # noqa: ARG001 - as all builders
    """First come first served on both sides."""
    assert setting.budget_tokens is not None
    return Baseline(Split(), whole_prompts(setting.budget_tokens), drafts=setting.drafts)
