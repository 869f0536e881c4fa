"""Reads a workload of inference-perf's catalog: lengths, turns, pauses and SLOs.

The form is that of `workload-catalog/*/config.json` in kubernetes-sigs/inference-perf. A prompt is
the shared system prompt and `input_sequence_length` tokens; each later turn adds
`input_sequence_length_per_turn`. A bimodal distribution is read as two values, the lower one its
minimum, with its mean and deviation.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

import numpy as np

from shared.errors import ConfigError
from shared.workloads.applications import Answer, Application, Kind, SharedPrefix, ToolLoop
from shared.workloads.arrivals import POISSON
from shared.workloads.lengths import QUANTILES, Lengths

MOST_CALLS: Final = 16  # of a session: longer ones would outlast the simulation
LONGEST_PAUSE_S: Final = 5.0  # between two of them, for the same reason
_ROOM: Final = 0.75  # share of the context above which the mean prompt is scaled
LONG_PROMPT: Final = 0.95  # quantile of prompts that gets half of the context then
_LEVELS: Final = 1000  # at which the turns are sampled
_SLO: Final = re.compile(r"(?P<what>ttft|itl)_p(?P<percentile>\d+)_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """A target in seconds, and the share of requests that must keep it."""

    target_s: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One workload. Its prompts and TTFT target are `scale` times the published ones."""

    application: Application
    ttft: Slo
    itl: Slo
    scale: float


def read_workload(path: Path, context_tokens: int) -> Workload | None:
    """The workload of a file, for a model with this context length.

    None for a workload without SLOs on both TTFT and inter-token latency. Raises ConfigError for a
    file that is no workload.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        return workload_of(path.stem.removeprefix("inference-perf_"), plain, context_tokens)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no workload of inference-perf: {error!r}") from error


def workload_of(name: str, plain: Mapping[str, Any], context_tokens: int) -> Workload | None:
    """The workload of a parsed file.

    If its mean prompt takes too much of the context, prompts and the TTFT target are scaled by one
    factor; answers are not. Raises KeyError, TypeError or ValueError.
    """
    slos = _slos(plain["metadata"].get("slos", {}))
    if set(slos) != {"ttft", "itl"}:
        return None
    prompt, system = plain["input_sequence_length"], plain["system_prompt"]["mean"]
    long_tokens = float(lengths(prompt).values(np.array([LONG_PROMPT]))[0]) + system
    scale = _scale(prompt["mean"] + system, long_tokens, context_tokens)
    ttft = Slo(target_s=slos["ttft"].target_s * scale, share=slos["ttft"].share)
    answer = Answer(
        stage="answer",
        tokens=lengths(plain["output_sequence_length"]),
        tpot_s=slos["itl"].target_s,
    )
    kind = Kind(
        class_name=name,
        ttft_s=ttft.target_s,
        prompt=lengths(prompt, scale),
        answers=(answer,),
        arrivals=POISSON,
        shared_prefix=SharedPrefix(tokens=max(1, round(system * scale))) if system else None,
        loop=_turns(name, plain, answer, scale),
    )
    application = Application(name=name, kinds=(kind,))
    return Workload(application=application, ttft=ttft, itl=slos["itl"], scale=scale)


def _slos(plain: Mapping[str, Any]) -> dict[str, Slo]:
    """The SLOs by `ttft` and `itl`."""
    found = ((_SLO.fullmatch(key), value) for key, value in plain.items())
    return {
        key["what"]: Slo(target_s=value / 1e3, share=int(key["percentile"]) / 100)
        for key, value in found
        if key
    }


def _scale(mean_tokens: float, long_tokens: float, context_tokens: int) -> float:
    if mean_tokens <= _ROOM * context_tokens:
        return 1.0
    return context_tokens / 2 / long_tokens


def _turns(name: str, plain: Mapping[str, Any], answer: Answer, scale: float) -> ToolLoop | None:
    """The turns after the first as a loop; None for a workload of single requests."""
    turns = plain["number_of_turns"]
    if turns["max"] <= 1:
        return None
    pause = lengths(plain["time_between_turns"], least=1e-3)
    p50, p84 = pause.values(np.array([0.5, NormalDist().cdf(1)])).tolist()
    return ToolLoop(
        class_name=name,
        tpot_s=answer.tpot_s,
        calls=_shares(lengths(turns)),
        response=lengths(plain["input_sequence_length_per_turn"], scale),
        median_tool_s=p50,
        sigma_tool=math.log(p84 / p50),
        longest_tool_s=LONGEST_PAUSE_S,
    )


def _shares(turns: Lengths) -> tuple[float, ...]:
    """Shares of sessions with one call, two and so on; longer ones count as MOST_CALLS."""
    drawn = np.minimum(turns.drawn((np.arange(_LEVELS) + 0.5) / _LEVELS), MOST_CALLS)
    return tuple(np.bincount(drawn, minlength=2)[1:].tolist())


def lengths(plain: Mapping[str, Any], scale: float = 1.0, *, least: float = 1.0) -> Lengths:
    """A distribution by its `distribution_type`, mean, deviation and ends.

    All values are multiplied by `scale` and at least `least`. Raises KeyError, or ValueError for an
    unknown type.
    """
    low, high, mean = plain["min"], plain["max"], plain["mean"]
    deviation, sort = plain["standard_deviation"], plain["distribution_type"]
    if sort == "bimodal":
        at, values = _two_values(low, mean, deviation)
    else:
        inner = [_value(sort, level, low, high, mean, deviation) for level in QUANTILES[1:-1]]
        at, values = QUANTILES, (low, *(min(max(one, low), high) for one in inner), high)
    return Lengths(tokens=tuple(max(least, one * scale) for one in values), at=at)


def _value(
    sort: str, level: float, low: float, high: float, mean: float, deviation: float
) -> float:
    """The quantile at `level`, before clipping."""
    if deviation == 0:
        return mean
    if sort == "normal":
        return NormalDist(mean, deviation).inv_cdf(level)
    if sort == "uniform":
        return low + level * (high - low)
    if sort == "exponential":
        return low - (mean - low) * math.log1p(-level)
    if sort == "log_normal":
        variance = math.log1p((deviation / mean) ** 2)
        normal = NormalDist(math.log(mean) - variance / 2, math.sqrt(variance))
        return math.exp(normal.inv_cdf(level))
    raise ValueError(f"unknown distribution {sort!r}")


def _two_values(
    low: float, mean: float, deviation: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Levels and quantiles of a two-point distribution with this minimum, mean and deviation."""
    apart = (deviation**2 + (mean - low) ** 2) / (mean - low)
    lower = 1 - (mean - low) / apart  # share of the lower value
    return (0.0, lower, lower + 1e-6, 1.0), (low, low, low + apart, low + apart)
