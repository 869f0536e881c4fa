"""How long prompts and answers are: a distribution by its quantiles, and drawing from it. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.float64]  # between 0 and 1, one for each draw: where in a distribution it lies
Tokens = NDArray[np.int64]

_DECILES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_PARTNERS: Final = 256  # so many are asked whether they would exchange
QUANTILES: Final = (0.0, 0.01, 0.05, *_DECILES, 0.95, 0.99, 0.999, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Token counts at the levels `at`, ascending; between two levels the logarithm is straight."""

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
        """The same, not rounded."""
        values: NDArray[np.float64] = np.exp(np.interp(levels, self.at, np.log(self.tokens)))
        return values


def log_normal(*, median: float, sigma: float, least: float, most: float) -> Lengths:
    """Log-normal token counts, kept within bounds."""
    normal = NormalDist(mu=math.log(median), sigma=sigma)
    inner = [math.exp(normal.inv_cdf(level)) for level in QUANTILES[1:-1]]
    return Lengths(tokens=(least, *(min(max(one, least), most) for one in inner), most))


def levels(draw: np.random.Generator, scores: NDArray[np.float64]) -> Levels:
    """A level for each score, in the same order and spread evenly.

    Even spread (Latin hypercube sampling) gives every load, however short, the whole distribution;
    only which request gets which part of it is drawn.
    """
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    spread: Levels = (ranks + draw.random(len(scores))) / len(scores)
    return spread


def even(draw: np.random.Generator, count: int) -> Levels:
    """Independent levels, spread evenly."""
    return levels(draw, draw.random(count))


def correlated(draw: np.random.Generator, count: int, correlation: float) -> tuple[Levels, Levels]:
    """Two levels for each of `count`, their normal scores correlated so much (-1 to 1)."""
    first = draw.standard_normal(count)
    own = draw.standard_normal(count)
    second = correlation * first + math.sqrt(1 - correlation**2) * own
    return levels(draw, first), levels(draw, second)


def picked(shares: Sequence[float], at: Levels) -> NDArray[np.int64]:
    """For each level the number of the share, from 0, in which it lies."""
    edges = np.cumsum(shares) / sum(shares)
    return np.searchsorted(edges[:-1], at, side="right").astype(np.int64)


def fitted(draw: np.random.Generator, prompts: Tokens, answers: Tokens, most: int) -> Tokens:
    """The same answers, exchanged until with their prompts they have at most `most` tokens.

    Exchanging keeps both distributions as they are. What finds no partner is cut.
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
