"""An online fit of step times, updated with every step of an engine."""

import math
from dataclasses import dataclass

from shared.batch_time.curve import MOST_TOKENS, StepCurve
from shared.batch_time.fit import Fit
from shared.batch_time.forms import ADDITIVE, USUAL, Form, features
from shared.batch_time.margins import Drift, Margins
from shared.batch_time.recursive import RecursiveFit
from shared.batch_time.steps import Kind, Step, step_of
from shared.batch_time.table import StepTable
from shared.batch_time.tuning import (
    FIT_TRUST,
    PRIOR_TRUST,
    PROMISED_SHARE,
    TELLING_PREFILL_TOKENS,
    TELLING_STEPS,
)
from shared.engines import StepReport


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """A step's duration as a sum: what every step costs and what each token adds, in seconds."""

    fixed_s: float
    per_prefill_token_s: float
    per_decode_token_s: float
    per_context_token_s: float = 0.0


class BatchTimeModel:
    """An online fit of a step's duration with costs that are never negative.

    Predictions are None for a kind of work (prefill, decode) before a few reports of it. With a
    prior both kinds are known from the start; a `Fit` as prior also sets the form. A step that
    compiled hardly moves the fit.
    """

    def __init__(
        self, prior: StepCost | Fit | None = None, *, promised: float = PROMISED_SHARE
    ) -> None:
        self._fit = _start(prior)
        known = _known_margins(prior, promised) if isinstance(prior, Fit) else None
        self._margins, self._drift = Margins(promised, known), Drift()
        self._curve: StepCurve | None = None
        self._prefill_reports = self._decode_reports = TELLING_STEPS if prior else 0

    def observe(self, report: StepReport) -> None:
        """Learns from one step; steps without tokens or time teach nothing."""
        self.learn(step_of(report), report.duration_s)

    def learn(self, step: Step, duration_s: float) -> None:
        """`observe` for a step with all of its counts."""
        if duration_s <= 0 or step.tokens <= 0:
            return
        known = self._knows(step)
        predicted_s = self._fit.learn(features(step), duration_s)
        if known and predicted_s > 0:
            self._margins.observe(step.kind, duration_s / (predicted_s * self._drift.factor))
            self._drift.observe(duration_s / predicted_s)
        self._curve = None
        self._prefill_reports += step.prefill_tokens >= TELLING_PREFILL_TOKENS
        self._decode_reports += step.decodes + step.speculated_tokens > 0

    def step_time(self, step: Step) -> float | None:
        """Seconds of one step that computes this; None while such work is unknown."""
        return self._drift.factor * self.curve.step_time(step) if self._knows(step) else None

    def upper_time(self, step: Step) -> float | None:
        """Seconds to promise: the promised share of recent steps of this kind kept within them."""
        seconds = self.step_time(step)
        return None if seconds is None else seconds * self._margins.of(step.kind)

    def max_tokens(
        self,
        budget_s: float,
        beside: Step | None = None,
        *,
        earlier_tokens: float = 0,
        most_tokens: int = MOST_TOKENS,
        sure: bool = False,
    ) -> int | None:
        """The longest chunk that keeps the budget beside what a step computes anyway.

        `sure`: by the time to promise rather than the expected one. None while unknown.
        """
        chunk = (beside or Step()).with_chunk(1, earlier_tokens)
        if not self._knows(chunk):
            return None
        margin = self._margins.of(chunk.kind) if sure else 1.0
        return self.curve.max_tokens(
            budget_s / (self._drift.factor * margin),
            beside,
            earlier_tokens=earlier_tokens,
            most_tokens=most_tokens,
        )

    def prefill_time(
        self, tokens: int, chunk_tokens: int, beside: Step | None = None
    ) -> float | None:
        """Seconds to compute `tokens` of prompt in steps of `chunk_tokens`; None while unknown.

        `beside` is what other requests add to each of these steps.
        """
        if tokens <= 0:
            return 0.0
        if not self._knows((beside or Step()).with_chunk(tokens)):
            return None
        return self._drift.factor * self.curve.prefill_time(tokens, chunk_tokens, beside)

    @property
    def curve(self) -> StepCurve:
        """The present fit without drift; zero where nothing is known."""
        if self._curve is None:
            self._curve = self._fit.curve
        return self._curve

    @property
    def table(self) -> StepTable | None:
        """The present fit with drift and margins; None while nothing is known.

        For a kind of work without reports it holds only the fixed cost of a step.
        """
        if max(self._prefill_reports, self._decode_reports) < TELLING_STEPS:
            return None
        margins = {kind: self._margins.of(kind) for kind in Kind}
        return StepTable.of(self.curve, drift=self._drift.factor, margins=margins)

    def _knows(self, step: Step) -> bool:
        return (not step.prefill_tokens or self._prefill_reports >= TELLING_STEPS) and (
            not step.decodes + step.speculated_tokens or self._decode_reports >= TELLING_STEPS
        )


def _start(prior: StepCost | Fit | None) -> RecursiveFit:
    if isinstance(prior, Fit):
        curve = prior.curve
        trust = [FIT_TRUST * one for one in prior.trust]
        return RecursiveFit(curve.form, curve.coefficients, trust)
    if prior is None:
        return RecursiveFit(ADDITIVE)
    costs = (
        prior.fixed_s,
        prior.per_prefill_token_s,
        prior.per_decode_token_s,
        prior.per_context_token_s,
    )
    return RecursiveFit(ADDITIVE, costs, _evenly(ADDITIVE, costs))


def _evenly(form: Form, costs: tuple[float, ...]) -> list[float]:
    """The trust of costs as if each had been seen in PRIOR_TRUST steps of a usual size."""
    usual = [USUAL[feature] for feature in form.columns]
    typical_s = math.fsum(a * b for a, b in zip(costs, usual, strict=True)) or 1.0
    return [PRIOR_TRUST * (one / typical_s) ** 2 for one in usual]


def _known_margins(fit: Fit, level: float) -> dict[Kind, float]:
    return {kind: fit.margin(kind, level) for kind in fit.margins}
