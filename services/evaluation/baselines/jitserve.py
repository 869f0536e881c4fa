"""JITServe or Tempo (arXiv 2504.20068): the most service gained per second of work."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from services.evaluation.baselines import by_gain
from services.evaluation.baselines.baseline import Baseline, StepFormer
from services.evaluation.baselines.routers import LeastLoaded
from services.evaluation.baselines.vllm import budgets
from services.evaluation.settings import Setting, TuningCase, colocated
from shared.batch_time.table import FloatArray
from shared.scheduling.acceptance import produced_tokens
from shared.simulation.engine import SimEngine
from shared.workloads.calls import Load

_BUDGETS_TOKENS = (512, 2048)
_QUANTILE = 0.95  # of its authors' length predictor


def settings(case: TuningCase) -> Iterator[Setting]:
    """Settings for gains of tokens and of requests, its authors' two measures of goodput."""
    for setting in colocated(case):
        for budget in case.budgets(*_BUDGETS_TOKENS):
            yield replace(setting, budget_tokens=budget)
            yield replace(setting, budget_tokens=budget, by_request=True)


def build(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Baseline:
    """Builds it with the answer lengths of each class, as a predictor trained on such requests
    knows them. Of a single request it knows only the class.
    """
    outputs = outputs_of(load)
    former = most_gain(
        predicted_lengths(list(outputs.values())),
        tokens_per_step=produced_tokens(_acceptance(load), setting.drafts + 1),
        by_request=bool(setting.by_request),
    )
    return Baseline(
        LeastLoaded({name: number for number, name in enumerate(outputs)}),
        former,
        drafts=setting.drafts,
        budget_tokens=budgets(setting, engines),
    )


def most_gain(
    lengths: FloatArray, *, tokens_per_step: float = 1.0, by_request: bool = False
) -> StepFormer:
    """Steps in which prompts begin by gain; `lengths` as from `predicted_lengths`."""
    return lambda rows, tokens, counts, table, limits, now: by_gain.form(
        rows, tokens, counts, table, limits, now, lengths, tokens_per_step, by_request
    )


def outputs_of(load: Load) -> Mapping[str, list[int]]:
    """Tokens of the answers, by class."""
    outputs: dict[str, list[int]] = defaultdict(list)
    for call in (call for program in load for call in program.calls):
        outputs[call.class_name].append(call.output_tokens)
    return outputs


def predicted_lengths(outputs: Sequence[Sequence[int]]) -> FloatArray:
    """An upper bound on the tokens of an answer, by class and by grains of tokens produced: a high
    quantile of the longer answers of its class; one more grain where there is none.
    """
    grains = int(max(max(one) for one in outputs) // by_gain.GRAIN_TOKENS) + 1
    lengths = np.empty((len(outputs), grains + 1))
    for number, one in enumerate(outputs):
        tokens = np.array(one, dtype=np.float64)
        for grain in range(grains + 1):
            given = grain * by_gain.GRAIN_TOKENS
            longer = tokens[tokens > given]
            bound = np.quantile(longer, _QUANTILE) if len(longer) else given + by_gain.GRAIN_TOKENS
            lengths[number, grain] = bound
    return lengths


def _acceptance(load: Load) -> float:
    calls = [call for program in load for call in program.calls]
    return sum(call.acceptance for call in calls) / len(calls)
