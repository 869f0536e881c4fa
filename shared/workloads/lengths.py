"""Distributions of prompt and answer lengths, given by quantiles, and drawing from them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.float64]  # one per draw, between 0 and 1: the quantile level
Tokens = NDArray[np.int64]

_DECILES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_PARTNERS: Final = 256  # candidates for an exchange
QUANTILES: Final = (0.0, 0.01, 0.05, *_DECILES, 0.95, 0.99, 0.999, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Token counts at the levels `at`, ascending, interpolated linearly in the logarithm."""

    tokens: tuple[float, ...]
    at: tuple[float, ...] = QUANTILES

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.at) or list(self.tokens) != sorted(self.tokens):
            raise ValueError(f"{len(self.at)} ascending token counts are wanted: {self.tokens}")
        if self.tokens[0] < 1:
            raise ValueError(f"a length is at least 1, not {self.tokens[0]}")

    @property
    def most(self) -> int:
        return round(self.tokens[-1])

    def drawn(self, levels: Levels) -> Tokens:
        """One length for each level."""
        return np.rint(self.values(levels)).astype(np.int64)

    def values(self, levels: Levels) -> NDArray[np.float64]:
        """One length for each level, not rounded."""
        values: NDArray[np.float64] = np.exp(np.interp(levels, self.at, np.log(self.tokens)))
        return values


def log_normal(*, median: float, sigma: float, least: float, most: float) -> Lengths:
    """Log-normal token counts, clipped to bounds."""
    normal = NormalDist(mu=math.log(median), sigma=sigma)
    inner = [math.exp(normal.inv_cdf(level)) for level in QUANTILES[1:-1]]
    return Lengths(tokens=(least, *(min(max(one, least), most) for one in inner), most))


def levels(draw: np.random.Generator, scores: NDArray[np.float64]) -> Levels:
    """A level for each score, in the same order, by Latin hypercube sampling.

    Every load, however short, then covers the whole distribution; chance decides only which request
    gets which part of it.
    """
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    spread: Levels = (ranks + draw.random(len(scores))) / len(scores)
    return spread


def even(draw: np.random.Generator, count: int) -> Levels:
    """Independent levels, by Latin hypercube sampling."""
    return levels(draw, draw.random(count))


def correlated(draw: np.random.Generator, count: int, correlation: float) -> tuple[Levels, Levels]:
    """Two levels for each of `count`, with this correlation of normal scores (-1 to 1)."""
    first = draw.standard_normal(count)
    own = draw.standard_normal(count)
    second = correlation * first + math.sqrt(1 - correlation**2) * own
    return levels(draw, first), levels(draw, second)


def picked(shares: Sequence[float], at: Levels) -> NDArray[np.int64]:
    """For each level the index of the share in which it lies."""
    edges = np.cumsum(shares) / sum(shares)
    return np.searchsorted(edges[:-1], at, side="right").astype(np.int64)


def fitted(draw: np.random.Generator, prompts: Tokens, answers: Tokens, most: int) -> Tokens:
    """Exchanges answers until each fits its prompt: at most `most` tokens together.

    An exchange keeps both distributions. An answer without a partner is cut.
    """
    answers = answers.copy()
    too_long = np.flatnonzero(prompts + answers > most)
    for one in too_long[np.argsort(-answers[too_long], kind="stable")]:
        others = draw.integers(len(prompts), size=_PARTNERS)
        fits = (prompts[one] + answers[others] <= most) & (prompts[others] + answers[one] <= most)
        for other in others[fits][:1]:
            answers[one], answers[other] = answers[other], answers[one]
    cut: Tokens = np.maximum(np.minimum(answers, most - prompts), 1)
    return cut
