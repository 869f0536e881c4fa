"""Computes step times from a form with its coefficients, and the longest chunk within a time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shared.batch_time.forms import Feature, Form, Polynomial, along, features
from shared.batch_time.steps import Step

MOST_TOKENS = 16_384
_ROUNDING = 1e-6  # of a token
_AFFINE = 1e-12  # relative; a convex function that differs less from a straight line is one
Point = tuple[int, float]
Weights = tuple[tuple[int, float], ...]  # by feature


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCurve:
    """Seconds of a step; more work of any sort never takes less.

    `coefficients` are in the order of `form.columns`. Raises ValueError where their number differs,
    or where one is negative or not finite.
    """

    form: Form
    coefficients: tuple[float, ...]
    _groups: tuple[tuple[Weights, ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        columns = self.form.columns
        if len(columns) != len(self.coefficients):
            raise ValueError(f"{self.form.name} has {len(columns)} coefficients")
        if not all(0 <= one < math.inf for one in self.coefficients):
            raise ValueError(f"coefficients must be finite and not negative: {self.coefficients}")
        pairs = [(int(a), b) for a, b in zip(columns, self.coefficients, strict=True)]
        object.__setattr__(
            self,
            "_groups",
            tuple(tuple(tuple(pairs[s]) for s in group) for group in self.form.slices),
        )

    def step_time(self, step: Step) -> float:
        """Seconds of one step; an empty one costs what every step costs."""
        return self.time_of(features(step))

    def time_of(self, values: tuple[float, ...]) -> float:
        """`step_time` of the features of a step."""
        return sum(
            max([sum([weight * values[feature] for feature, weight in piece]) for piece in group])
            for group in self._groups
        )

    def max_tokens(
        self,
        budget_s: float,
        beside: Step | None = None,
        *,
        earlier_tokens: float = 0,
        most_tokens: int = MOST_TOKENS,
    ) -> int:
        """The longest chunk, after `earlier_tokens` of its prompt, with which a step keeps the
        budget.

        `beside` is what the step computes anyway. Returns 0 where not even one token more fits.
        """
        groups = self._along(beside or Step(), earlier_tokens)
        if most_tokens < 1 or _value(groups, 1) > budget_s:
            return 0
        tokens = _crossing(groups, budget_s, most_tokens)
        while tokens < most_tokens and _value(groups, tokens + 1) <= budget_s:
            tokens += 1  # the crossing is exact up to rounding
        while _value(groups, tokens) > budget_s:
            tokens -= 1
        return tokens

    def prefill_time(self, tokens: int, chunk_tokens: int, beside: Step | None = None) -> float:
        """Seconds to compute a prompt in steps of `chunk_tokens`, each of them with `beside`."""
        if tokens <= 0:
            return 0.0
        step = beside or Step()
        whole, rest = divmod(tokens, chunk_tokens)
        last_s = self.step_time(step.with_chunk(rest, whole * chunk_tokens)) if rest else 0.0

        def at(place: int) -> float:
            return self.step_time(step.with_chunk(chunk_tokens, place * chunk_tokens))

        return last_s + _convex_sum(at, whole)

    def _along(self, step: Step, earlier_tokens: float) -> list[list[Polynomial]]:
        """The groups as polynomials of the tokens of one more chunk, for one token and more."""
        kept = max(step.longest_prompt_tokens, step.longest_decode_tokens)
        growing = along(step, earlier_tokens)
        standing = [*growing]
        standing[Feature.LONGEST] = (kept, 0.0, 0.0)
        return [
            [
                _polynomial(piece, terms)
                for piece in group
                for terms in ((growing, standing) if _has_longest(piece) else (growing,))
            ]
            for group in self._groups
        ]


def _polynomial(piece: Weights, terms: Sequence[Polynomial]) -> Polynomial:
    constant = linear = square = 0.0
    for feature, weight in piece:
        a, b, c = terms[feature]
        constant += weight * a
        linear += weight * b
        square += weight * c
    return constant, linear, square


def _has_longest(piece: Weights) -> bool:
    return any(feature == Feature.LONGEST for feature, _ in piece)


def _value(groups: list[list[Polynomial]], tokens: float) -> float:
    return sum([max([a + tokens * (b + tokens * c) for a, b, c in group]) for group in groups])


def _crossing(groups: list[list[Polynomial]], budget_s: float, most_tokens: int) -> int:
    """Newton's method on a convex curve, from the right end; rounded down to a whole token."""
    tokens = float(most_tokens)
    for _ in range(64):
        tops = [max([(a + tokens * (b + tokens * c), b, c) for a, b, c in g]) for g in groups]
        time_s = sum([top for top, _, _ in tops])
        slope = sum([b + 2 * tokens * c for _, b, c in tops])
        if time_s <= budget_s or slope <= 0:
            break
        step = (time_s - budget_s) / slope
        tokens -= step
        if step < _ROUNDING:
            break
    return max(1, min(most_tokens, math.floor(tokens)))


def _convex_sum(at: Callable[[int], float], count: int) -> float:
    """The sum of a convex function over 0 .. count - 1, with few calls where it is straight."""
    if count < 2:
        return at(0) if count else 0.0
    first_s, last_s = at(0), at(count - 1)
    return first_s + last_s + _between(at, (0, first_s), (count - 1, last_s))


def _between(at: Callable[[int], float], first: Point, last: Point) -> float:
    """The sum without the two ends; bisects until the function is straight."""
    inner = last[0] - first[0] - 1
    if inner < 1:
        return 0.0
    place = (first[0] + last[0]) // 2
    middle = place, at(place)
    straight_s = first[1] + (last[1] - first[1]) * (place - first[0]) / (inner + 1)
    if abs(middle[1] - straight_s) <= _AFFINE * last[1]:
        return inner * (first[1] + last[1]) / 2
    return middle[1] + _between(at, first, middle) + _between(at, middle, last)
