"""Dynamo's conditional disaggregation (`--router-conditional-disagg`, policy `isl_bounding`): long
prompts go to prefill engines, short ones are computed where they decode; the engines are vLLM's.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from services.evaluation.rivals.rival import Rival
from services.evaluation.rivals.routers import Split
from services.evaluation.rivals.vllm import chunks
from services.evaluation.settings import Scene, Setting, disaggregated
from shared.engines import Role
from shared.simulation.engine import SimEngine
from shared.workloads.calls import Load

_THRESHOLDS = (512, 1024, 2048)  # tokens that are not cached; the default is the last


def settings(scene: Scene) -> Iterator[Setting]:
    """Budgets are those of decode engines; prefill engines have the longest steps there are."""
    budgets = scene.budgets(512, 2048)
    for setting, most, threshold in itertools.product(disaggregated(scene), budgets, _THRESHOLDS):
        if setting.prefill <= setting.decode:
            yield replace(setting, budget_tokens=most, threshold_tokens=threshold)


def build(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Rival:  # noqa: ARG001 - as all builders
    """Least loaded engines of both kinds."""
    assert setting.budget_tokens is not None
    assert setting.threshold_tokens is not None
    decode = (engine.name for engine in engines if engine.role is Role.DECODE)
    return Rival(
        Split(setting.threshold_tokens),
        chunks(),
        drafts=setting.drafts,
        budget_tokens=dict.fromkeys(decode, setting.budget_tokens),
    )
