"""Formats capacities and their ratios for a cell or a line of a report."""

import math
from collections.abc import Sequence

from services.evaluation.study import Comparison, geometric_mean


def ratio_of(one: float, other: float) -> float:
    if math.isnan(one) or math.isnan(other):
        return math.nan
    return one / other if other else (math.inf if one else math.nan)


def rate_cell(rate: float | None) -> str:
    if rate is None or math.isnan(rate):
        return "not run"
    return f"{rate:.3g}"


def times_cell(ratio: float) -> str:
    if math.isnan(ratio):
        return "-"
    return "nothing else carries it" if math.isinf(ratio) else f"{ratio:.2f} x"


def replicas_words(replicas: int) -> str:
    return "1 replica" if replicas == 1 else f"{replicas} replicas"


def mean_line(compared: Sequence[Comparison]) -> str:
    ratios = [one.ratio for one in compared]
    mean = geometric_mean(ratios)
    if not ratios:
        return "No baseline was measured."
    if math.isnan(mean):
        return "No mean: in some scenario nothing is carried by ours or by any baseline."
    ahead = sum(round(ratio, 2) > 1 for ratio in ratios)  # as they are shown
    return (
        f"Ours / best baseline as geometric mean: {mean:.2f}; ahead in {ahead} of {len(ratios)} "
        "scenarios."
    )
