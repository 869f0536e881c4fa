"""How long an engine step takes, fitted to what steps took. Decides nothing and reads no clock."""

import math
from dataclasses import dataclass

from shared.engines import StepReport

_FIXED, _PREFILL, _DECODE, _CONTEXT = range(4)
# Features are scaled so that one report is credited to the kind of work that it mostly was.
_SCALES = (1.0, 1 / 32, 1 / 8, 1 / 4096)
# Fewer prompt tokens (one is computed again after a KV transfer) say little of what prompts cost.
_TELLING_PREFILL_TOKENS = 16
_TELLING_REPORTS = 3  # the first of a kind may have compiled; refusals must not rest on it
_KEPT = 0.99  # of what earlier reports weigh, with each report of their kind
_KEPT_WHEN_SURPRISED = 0.9  # the same when prediction and report have nothing in common
_FIRST_TRUST = 1e-3  # weight of "all costs are zero" beside one report
_PRIOR_TRUST = 3.0  # weight of a given prior, in reports
_OUTLIER = 1.5  # a step further from its prediction counts as if it were only that far
_SWEEPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """A step's duration as a sum: what every step costs and what each token adds, in seconds."""

    fixed_s: float
    per_prefill_token_s: float
    per_decode_token_s: float
    per_context_token_s: float = 0.0


class BatchTimeModel:
    """An online fit of a step's duration with costs that are never negative.

    It knows nothing of a kind of work (prefill, decode) before a few reports of it, and says
    None; with a prior it knows both from the start. A step that compiled hardly moves it.
    """

    def __init__(self, prior: StepCost | None = None) -> None:
        self._costs = [0.0] * 4
        self._information: list[list[float]] = []
        self._prefill_reports = self._decode_reports = _TELLING_REPORTS if prior else 0
        if prior is not None:
            self._start_from(prior)

    def observe(self, report: StepReport) -> None:
        """Learns from one step; steps without tokens or time teach nothing."""
        decode_tokens = report.decode_tokens + report.speculated_tokens
        if report.duration_s <= 0 or report.prefill_tokens + decode_tokens <= 0:
            return
        features = _features(report.prefill_tokens, decode_tokens, report.context_tokens)
        if not self._information:
            self._information = _diagonal(_FIRST_TRUST / report.duration_s**2)
        self._learn(features, report.duration_s)
        self._prefill_reports += report.prefill_tokens >= _TELLING_PREFILL_TOKENS
        self._decode_reports += decode_tokens > 0

    def step_time(
        self, prefill_tokens: float, decode_tokens: float, context_tokens: float
    ) -> float | None:
        """Seconds of one step that computes these tokens; None while such work is unknown."""
        if not self._knows(prefill_tokens, decode_tokens):
            return None
        return _dot(self._costs, _features(prefill_tokens, decode_tokens, context_tokens))

    def prefill_time(
        self,
        tokens: int,
        chunk_tokens: int,
        *,
        decode_tokens: float = 0,
        context_tokens: float = 0,
    ) -> float | None:
        """Seconds to compute `tokens` of prompt in steps of `chunk_tokens`; None while unknown.

        `decode_tokens` and `context_tokens` are what other requests add to each of these steps.
        """
        if tokens <= 0:
            return 0.0
        if not self._knows(tokens, decode_tokens):
            return None
        steps = math.ceil(tokens / chunk_tokens)
        read_again = chunk_tokens * steps * (steps - 1) / 2  # each chunk attends to those before it
        decode, context = decode_tokens * steps, context_tokens * steps + read_again
        fixed = self._costs[_FIXED] * (steps - 1)  # the features below hold one step's worth
        return fixed + _dot(self._costs, _features(tokens, decode, context))

    @property
    def cost(self) -> StepCost:
        """The costs as they stand; zero where nothing is known."""
        fixed, prefill, decode, context = (
            cost * scale for cost, scale in zip(self._costs, _SCALES, strict=True)
        )
        return StepCost(
            fixed_s=fixed,
            per_prefill_token_s=prefill,
            per_decode_token_s=decode,
            per_context_token_s=context,
        )

    def _knows(self, prefill_tokens: float, decode_tokens: float) -> bool:
        return (not prefill_tokens or self._prefill_reports >= _TELLING_REPORTS) and (
            not decode_tokens or self._decode_reports >= _TELLING_REPORTS
        )

    def _start_from(self, prior: StepCost) -> None:
        costs = (
            prior.fixed_s,
            prior.per_prefill_token_s,
            prior.per_decode_token_s,
            prior.per_context_token_s,
        )
        self._costs = [cost / scale for cost, scale in zip(costs, _SCALES, strict=True)]
        typical_s = sum(self._costs) or 1.0
        self._information = _diagonal(_PRIOR_TRUST / typical_s**2)

    def _learn(self, features: list[float], seconds: float) -> None:
        """One step of recursive least squares on the relative error, then back to costs >= 0."""
        predicted_s = _dot(self._costs, features)
        scale_s = min(max(predicted_s, seconds / _OUTLIER), seconds * _OUTLIER)
        weight = 1 / scale_s**2
        self._forget(features, abs(seconds - predicted_s) / max(seconds, predicted_s))
        wanted = [_dot(row, self._costs) for row in self._information]
        for i, feature in enumerate(features):
            if feature:
                wanted[i] += weight * feature * seconds
                row = self._information[i]
                for j, other in enumerate(features):
                    row[j] += weight * feature * other
        for _ in range(_SWEEPS):
            self._descend(wanted)

    def _forget(self, features: list[float], surprise: float) -> None:
        """Only of the kinds of work seen now: an hour of decoding must not wipe out prefill.

        `surprise` is 0 to 1: an engine that became slower or faster is followed sooner.
        """
        kept = math.sqrt(_KEPT + surprise * (_KEPT_WHEN_SURPRISED - _KEPT))
        keep = [kept if feature else 1.0 for feature in features]
        for keep_row, row in zip(keep, self._information, strict=True):
            for j, keep_column in enumerate(keep):
                row[j] *= keep_row * keep_column

    def _descend(self, wanted: list[float]) -> None:
        for i, row in enumerate(self._information):
            missing = wanted[i] - _dot(row, self._costs)
            self._costs[i] = max(0.0, self._costs[i] + missing / row[i])


def _features(prefill_tokens: float, decode_tokens: float, context_tokens: float) -> list[float]:
    return [
        _SCALES[_FIXED],
        prefill_tokens * _SCALES[_PREFILL],
        decode_tokens * _SCALES[_DECODE],
        context_tokens * _SCALES[_CONTEXT],
    ]


def _diagonal(value: float) -> list[list[float]]:
    return [[value if i == j else 0.0 for j in range(4)] for i in range(4)]


def _dot(a: list[float], b: list[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]
