"""Turns the output of `slos-serve profile` into hardware to simulate."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.batch_time import Fit, Kind, StepTable, from_plain
from shared.batch_time.profile_fit import MeasuredStep
from shared.batch_time.table import counts_of
from shared.errors import ConfigError
from shared.hardware.hardware import Hardware
from shared.hardware.truth import KnownStep, true_s

_CURE = "make one with `slos-serve profile --json > FILE`"
_KINDS = (Kind.DECODE, Kind.PREFILL, Kind.MIXED)
_TOLD_LEVELS = (0.8, 0.9, 0.95)
_STANDARD = (0.8416, 1.2816, 1.6449)  # the same of the standard normal distribution


def from_profile(
    path: Path,
    *,
    link_bytes_per_s: float = 1.0e9,
    link_latency_s: float = 0.005,
    host_overhead_s: float = 0.0,
) -> Hardware:
    """An engine with the step times of its fit and the spread of the profiled steps.

    A profile does not cover links (`slos-serve bench kv` measures them) and the time between
    steps. Raises ConfigError if the file is no profile.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        fit, engine = from_plain(plain["fit"]), plain["engine"]
        measured = [MeasuredStep.of_plain(one) for one in plain.get("measured", ())]
        return Hardware(
            name=path.stem,
            source=f"`slos-serve profile`: {fit.steps} steps of {engine['device']}",
            step=known_step(fit, measured),
            stall_chance=0.0,
            stall_s=0.0,
            link_bytes_per_s=link_bytes_per_s,
            link_latency_s=link_latency_s,
            host_overhead_s=host_overhead_s,
            **_described(engine),
        )
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no profile of an engine ({error!r}); {_CURE}") from error


def known_step(fit: Fit, measured: Sequence[MeasuredStep] = ()) -> KnownStep:
    """The step times of a fit. `measured` are the steps behind it, if they were stored.

    A kind of step that the profile has not measured gets the spread of the others.
    """
    by_batch = _by_batch(fit, measured)
    margins = dict(fit.margins)
    if by_batch:  # the spread that remains after correction by batch size
        plain = KnownStep(table=StepTable.of(fit.curve), sigmas=(0.0, 0.0, 0.0), by_batch=by_batch)
        ratios = [
            one.seconds / true_s(plain.numbers, counts_of(one.step)) for one in _decodes(measured)
        ]
        margins[Kind.DECODE] = tuple(float(one) for one in np.quantile(ratios, fit.levels))
    spreads = [_spread(fit.levels, margins, kind) for kind in _KINDS]
    means = {kind: mean for kind, (mean, _) in zip(_KINDS, spreads, strict=True)}
    decode, prefill, mixed = (sigma for _, sigma in spreads)
    table = StepTable.of(fit.curve, margins=means)
    return KnownStep(table=table, sigmas=(decode, prefill, mixed), by_batch=by_batch)


def _decodes(measured: Sequence[MeasuredStep]) -> list[MeasuredStep]:
    return [
        one for one in measured if one.step.kind is Kind.DECODE and not one.step.speculated_tokens
    ]


def _by_batch(fit: Fit, measured: Sequence[MeasuredStep]) -> tuple[tuple[float, float], ...]:
    """For steps that only decode: median ratio of measured to fitted time, by batch size."""
    ratios: defaultdict[float, list[float]] = defaultdict(list)
    for one in _decodes(measured):
        ratios[one.step.decodes].append(one.seconds / fit.curve.step_time(one.step))
    return tuple((size, float(np.median(found))) for size, found in sorted(ratios.items()))


def _spread(
    levels: Sequence[float], margins: Mapping[Kind, Sequence[float]], kind: Kind
) -> tuple[float, float]:
    """Mean and sigma of the log-normal distribution with the measured quantiles."""
    known = margins.get(kind) or next(iter(margins.values()))
    median = float(np.interp(0.5, levels, known))
    found = np.interp(_TOLD_LEVELS, levels, known)
    sigma = max(0.0, float(np.mean(np.log(found / median) / np.array(_STANDARD))))
    return median * float(np.exp(sigma**2 / 2)), sigma


def _described(engine: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": str(engine["model"]),
        "gpu": str(engine["device"]),
        "gpus": int(engine["gpus"]),
        "kv_blocks": int(engine["kv_blocks"]),
        "block_size_tokens": int(engine["block_size_tokens"]),
        "kv_bytes_per_token": float(engine["kv_bytes_per_token"]),
        "max_step_tokens": int(engine["max_step_tokens"]),
        "max_running_requests": int(engine["max_running_requests"]),
        "max_model_len_tokens": int(engine["max_model_len_tokens"]),
    }
