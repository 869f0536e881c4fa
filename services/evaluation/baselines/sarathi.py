"""Sarathi-Serve (arXiv 2403.02310): stall-free steps with a budget from the tightest pace."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from services.evaluation.baselines import paced
from services.evaluation.baselines.baseline import Baseline, StepFormer
from services.evaluation.baselines.routers import LeastLoaded
from services.evaluation.baselines.vllm import chunks
from services.evaluation.settings import Setting, TuningCase, colocated
from shared.batch_time import StepTable
from shared.batch_time.table import (
    COUNTS,
    DECODE_CONTEXT,
    DECODES,
    LONGEST_CONTEXT,
    SPECULATED,
    SPECULATION_STEPS,
)
from shared.simulation.engine import SimEngine
from shared.workloads.calls import Load

_DECODES = (16, 64)
_PACE_SHARES = (1.0, 0.85)
_DRAFTING_SHARES = (1.0, 1.5, 2.0)  # a step with drafts yields more tokens and may last longer


def settings(case: TuningCase) -> Iterator[Setting]:
    """One budget for all steps, profiled for a guessed number of decodes, as by its authors, or a
    budget for each step, as by those of SLOs-Serve.
    """
    for setting in colocated(case):
        for share in _DRAFTING_SHARES if setting.drafts else _PACE_SHARES:
            yield replace(setting, pace_share=share)
            for decodes in _DECODES:
                yield replace(setting, pace_share=share, assumed_decodes=decodes)


def build(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Baseline:
    """First come first served, on the engine with the least to do."""
    assert setting.pace_share is not None
    if setting.assumed_decodes is None:
        return Baseline(LeastLoaded(), paced_chunks(setting.pace_share), drafts=setting.drafts)
    case = TuningCase(hardware=engines[0].hardware, replicas=len(engines), load=load)
    budget = budget_tokens(setting, engines[0].table, case)
    each = dict.fromkeys((engine.name for engine in engines), budget)
    return Baseline(LeastLoaded(), chunks(), drafts=setting.drafts, budget_tokens=each)


def paced_chunks(pace_share: float) -> StepFormer:
    """Steps with a budget computed for each."""
    return lambda rows, tokens, counts, table, limits, now: paced.form(
        rows, tokens, counts, table, limits, now, pace_share
    )


def budget_tokens(setting: Setting, table: StepTable, case: TuningCase) -> int:
    """One budget for all steps: the most tokens that keep their share of the load's tightest pace
    beside `assumed_decodes` of mean length.
    """
    decodes, share = float(setting.assumed_decodes or 0), setting.pace_share or 1.0
    counts, context = np.zeros(COUNTS), _mean_context_tokens(case.load)
    counts[DECODES], counts[SPECULATED] = decodes, decodes * setting.drafts
    counts[SPECULATION_STEPS] = setting.drafts
    counts[DECODE_CONTEXT], counts[LONGEST_CONTEXT] = decodes * context, context
    most, until_s = float(case.hardware.max_step_tokens), share * case.tightest_tpot_s
    return int(paced.budget_tokens(counts, table.numbers, most, until_s))


def _mean_context_tokens(load: Load) -> float:
    calls = [call for program in load for call in program.calls]
    return sum(call.prompt_tokens + call.output_tokens / 2 for call in calls) / len(calls)
