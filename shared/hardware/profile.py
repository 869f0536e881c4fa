"""The step times that a simulated engine's planner starts from.

The engine profiles itself as a real one does: the same plan, noisy steps, the same fit.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from shared.batch_time import ADDITIVE, PAPER, RICH, BatchTimeModel, Fit, Step, StepTable, fit_curve
from shared.batch_time.profile_fit import MeasuredStep, fit_of
from shared.batch_time.profile_plan import (
    OPENING,
    SMALL_BATCHES,
    Limits,
    Plan,
    Trial,
    steps_of,
)
from shared.batch_time.saved import to_plain
from shared.batch_time.table import counts_of
from shared.batch_time.tuning import ENOUGH_STEPS, TRIAL_SHARE
from shared.hardware.hardware import Hardware
from shared.hardware.truth import noisy_s, true_s

_LIMIT_S = 15.0  # as a starting engine
_DRAFT_LENGTHS, _DRAFT_SEQUENCES = (1, 2, 4, 8), (1, 8, 32)
_DRAFT_CONTEXT_TOKENS = 512
_EXACT_LIMIT_S = 600.0


@cache
def profiled(hardware: Hardware, seed: int = 0) -> StepTable:
    """The table, with margins, that planner and step former start from.

    Raises ValueError if the engine is too small to be measured.
    """
    return _table(_fitted(hardware, seed))


@cache
def saved_profile(hardware: Hardware, seed: int = 0) -> Mapping[str, Any]:
    """The fit behind `profiled` as plain data, from which an engine keeps learning.

    Raises ValueError if the engine is too small to be measured.
    """
    return to_plain(_fitted(hardware, seed))


@cache
def paper_form(hardware: Hardware, seed: int = 0) -> StepTable:
    """The same steps fitted by the paper's form: tokens and speculation steps alone."""
    steps = measured(hardware, seed)
    return _table(fit_curve(PAPER, [one.step for one in steps], [one.seconds for one in steps]))


@cache
def exact(hardware: Hardware) -> StepTable:
    """Our form fitted to a long profile without noise, without margins: its best possible fit."""
    steps = list(_steps(hardware, None, _EXACT_LIMIT_S))
    fit = fit_curve(RICH, [one.step for one in steps], [one.seconds for one in steps])
    return StepTable.of(fit.curve)


@cache
def measured(hardware: Hardware, seed: int = 0) -> tuple[MeasuredStep, ...]:
    """The noisy steps of one profile, in the order in which the plan chose them."""
    return tuple(_steps(hardware, np.random.default_rng(seed), _LIMIT_S))


def _fitted(hardware: Hardware, seed: int) -> Fit:
    fit = fit_of(measured(hardware, seed))
    if fit is None:
        raise ValueError(f"{hardware.name} made too few steps for a profile")
    return fit


def _table(fit: Fit) -> StepTable:
    table = BatchTimeModel(fit).table
    assert table is not None, "a model that starts from a fit knows something"
    return table


def _steps(
    hardware: Hardware, random: np.random.Generator | None, limit_s: float
) -> Iterator[MeasuredStep]:
    """The steps of `shared.engine.profile_run` on virtual time; without `random`, no noise."""
    limits = _limits(hardware)
    plan, seen, left_s = Plan(limits), list[MeasuredStep](), limit_s
    trials = [trial for trial in OPENING if trial.fits(limits)]
    while len(seen) < ENOUGH_STEPS and left_s > 0:
        trial = trials.pop(0) if trials else _next(plan, seen, min(left_s, TRIAL_SHARE * limit_s))
        if trial is None:
            break
        new = [_step(hardware, step, random) for step in steps_of(trial)]
        plan.saw([one.step for one in new], [one.seconds for one in new])
        left_s -= sum(one.seconds for one in new)
        seen += new
    for trial in SMALL_BATCHES:
        if trial.fits(limits):
            seen += [_step(hardware, step, random) for step in steps_of(trial)]
    yield from seen
    yield from (_step(hardware, step, random) for step in _drafting(hardware))


def _next(plan: Plan, seen: list[MeasuredStep], left_s: float) -> Trial | None:
    if not seen:
        return None
    curve = fit_curve(ADDITIVE, [one.step for one in seen], [one.seconds for one in seen]).curve
    return plan.next(curve, left_s)


def _drafting(hardware: Hardware) -> Iterator[Step]:
    """Decodes with drafts, which the plan does not include."""
    most = hardware.draft.max_speculation_tokens if hardware.draft else 0
    for length in (one for one in _DRAFT_LENGTHS if one <= most):
        for sequences in _DRAFT_SEQUENCES:
            yield Step(
                decodes=sequences,
                speculated_tokens=sequences * length,
                speculation_steps=length,
                decode_context_tokens=sequences * _DRAFT_CONTEXT_TOKENS,
                longest_context_tokens=_DRAFT_CONTEXT_TOKENS,
            )


def _step(hardware: Hardware, step: Step, random: np.random.Generator | None) -> MeasuredStep:
    counts, numbers = counts_of(step), hardware.step.numbers
    if random is None:
        return MeasuredStep(step=step, seconds=float(true_s(numbers, counts)))
    seconds = float(noisy_s(numbers, counts, random.standard_normal()))
    stalls = random.random() < hardware.stall_chance
    return MeasuredStep(step=step, seconds=seconds + (hardware.stall_s if stalls else 0.0))


def _limits(hardware: Hardware) -> Limits:
    return Limits(
        model_len_tokens=hardware.max_model_len_tokens,
        step_tokens=hardware.max_step_tokens,
        requests=hardware.max_running_requests,
        kv_tokens=hardware.kv_tokens,
    )
