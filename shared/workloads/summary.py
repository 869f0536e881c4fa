"""Summarizes a load in numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from shared.workloads.calls import Load, rate, requests, total_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Statistics of token counts."""

    mean: float
    deviation: float
    p50: float
    p90: float
    p99: float

    def __str__(self) -> str:
        return f"{self.mean:.0f} (p50 {self.p50:.0f}, p90 {self.p90:.0f}, p99 {self.p99:.0f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSummary:
    """`gap_cv` is the coefficient of variation of the gaps between arrivals: 1 for Poisson."""

    programs: int
    calls: int
    span_s: float
    programs_per_s: float
    gap_cv: float
    total_tokens: int
    prompt_tokens: Spread
    output_tokens: Spread
    prefix_share: float  # share of prompt tokens that were computed before
    calls_by_class: Mapping[str, int]

    def __str__(self) -> str:
        classes = ", ".join(f"{name} {count}" for name, count in self.calls_by_class.items())
        return (
            f"{self.programs} programs, {self.calls} calls ({classes}) in {self.span_s:.0f} s, "
            f"{self.programs_per_s:.3g}/s, CV of gaps {self.gap_cv:.2f}; "
            f"prompts {self.prompt_tokens}, {self.prefix_share:.0%} of it computed before; "
            f"answers {self.output_tokens}"
        )


def summary(load: Load) -> LoadSummary:
    """The summary of a load. Raises ValueError for a load without programs."""
    if not load:
        raise ValueError("a load has at least one program")
    calls = [call for program in load for call in program.calls]
    prompts = [call.prompt_tokens for call in calls]
    return LoadSummary(
        programs=len(load),
        calls=requests(load),
        span_s=load[-1].arrives_s - load[0].arrives_s,
        programs_per_s=rate(load),
        gap_cv=gap_cv(load),
        total_tokens=total_tokens(load),
        prompt_tokens=_spread(prompts),
        output_tokens=_spread([call.output_tokens for call in calls]),
        prefix_share=sum(call.prefix_tokens for call in calls) / sum(prompts),
        calls_by_class=dict(sorted(Counter(call.class_name for call in calls).items())),
    )


def gap_cv(load: Load) -> float:
    """The CV of gaps; 0 for fewer than two programs, and if all arrive at once."""
    gaps = np.array([right.arrives_s - left.arrives_s for left, right in pairwise(load)])
    return float(gaps.std() / gaps.mean()) if gaps.any() else 0.0


def _spread(tokens: Sequence[int]) -> Spread:
    p50, p90, p99 = np.percentile(tokens, (50, 90, 99)).tolist()
    return Spread(
        mean=float(np.mean(tokens)), deviation=float(np.std(tokens)), p50=p50, p90=p90, p99=p99
    )
