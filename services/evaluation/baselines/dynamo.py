"""Dynamo's conditional disaggregation (`--router-conditional-disagg`, policy `isl_bounding`): long
prompts go to prefill engines, short ones are computed where they decode; the engines are vLLM's.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from services.evaluation.baselines.baseline import Baseline
from services.evaluation.baselines.routers import Split
from services.evaluation.baselines.vllm import chunks
from services.evaluation.settings import Setting, TuningCase, disaggregated
from shared.engines import Role
from shared.simulation.engine import SimEngine
from shared.workloads.calls import Load

_BUDGET_TOKENS = 2048
_SHARES = (0.25, 0.5, 0.75)  # quantiles of prompt lengths that are tried as thresholds
_GRAIN_TOKENS = 64


def settings(case: TuningCase) -> Iterator[Setting]:
    """Thresholds are quantiles of the load's prompts. The budget is that of decode engines; prefill
    engines have the longest steps that they can.
    """
    (budget,) = case.budgets(_BUDGET_TOKENS)
    for setting, threshold in itertools.product(disaggregated(case), thresholds(case.load)):
        yield replace(setting, budget_tokens=budget, threshold_tokens=threshold)


def thresholds(load: Load) -> list[int]:
    """Thresholds in uncached tokens, in grains of 64."""
    prompts = [call.new_prompt_tokens for program in load for call in program.calls]
    grains = np.ceil(np.quantile(prompts, _SHARES) / _GRAIN_TOKENS)
    return sorted({int(grain) * _GRAIN_TOKENS for grain in grains})


def build(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Baseline:  # noqa: ARG001 - as all builders
    """Sends requests to the least loaded engines of both kinds."""
    assert setting.budget_tokens is not None
    assert setting.threshold_tokens is not None
    decode = (engine.name for engine in engines if engine.role is Role.DECODE)
    return Baseline(
        Split(setting.threshold_tokens),
        chunks(drafts=setting.drafts),
        drafts=setting.drafts,
        budget_tokens=dict.fromkeys(decode, setting.budget_tokens),
    )
