"""Explains broken promises: splits a request's time into parts, beside their predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.bench.soak.records import RecordedRequest
from shared.requests import Admission, Explanation, Outcome, PlacementOption, Reason, StepSums


class Cause(StrEnum):
    """Where time was lost. `LOST`: unknown, since the record, its end or times are missing."""

    QUEUE = "queue"  # deferred by the planner, or waiting in the engine for its first step
    PREFILL = "prefill"  # its prompt took more or fuller steps than predicted
    TRANSFER = "transfer"  # of KV, with the decode engine's first step
    DECODE = "decode interference"  # its tokens came in fewer or fuller steps
    MODEL = "model error"  # steps took longer than the step-time model predicts for them
    DELIVERY = "delivery"  # between client, gateway, planner and engine
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a time. Negative real seconds: steps were quicker than their table predicts."""

    cause: Cause
    real_s: float
    predicted_s: float = 0.0

    @property
    def excess_s(self) -> float:
        return self.real_s - self.predicted_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """A broken promise.

    Attributes:
        cause: The dominating cause.
        excess_s: Seconds of each cause beyond its prediction, for the first target missed.
        late_by: The greatest ratio of real to target time.
    """

    request: RecordedRequest
    cause: Cause
    excess_s: dict[Cause, float]
    missed_ttft: bool
    missed_tpot: bool
    late_by: float


def was_promised(request: RecordedRequest) -> bool:
    """Whether the planner's record shows an admission with targets; False without a record."""
    placement = request.record.placement if request.record else None
    return (
        placement is not None
        and placement.admission is Admission.ADMITTED
        and placement.reason is not Reason.NO_TARGET
    )


def miss_of(request: RecordedRequest) -> Miss | None:
    """The broken promise of a request; None if it was kept or never given."""
    if not was_promised(request) or request.judged.is_met:
        return None
    seen, judged = request.judged.seen, request.judged
    ttft = (seen.ttft_s or 0.0) / judged.ttft_target_s
    tpot = (seen.tpot_s or 0.0) / judged.tpot_target_s
    excess = _excess(request, missed_ttft=ttft > 1)
    return Miss(
        request=request,
        cause=max(excess, key=lambda one: excess[one]) if excess else Cause.LOST,
        excess_s=excess,
        missed_ttft=ttft > 1,
        missed_tpot=tpot > 1,
        late_by=max(ttft, tpot),
    )


def _excess(request: RecordedRequest, *, missed_ttft: bool) -> dict[Cause, float]:
    """Excess seconds by cause, for the first target missed; empty if unknown.

    After a missed TTFT the promise is void, so TPOT is then not explained.
    """
    parts = (start_parts(request) if missed_ttft else pace_parts(request)) or ()
    return {part.cause: part.excess_s for part in parts}


@dataclass(slots=True)
class _Clipped:
    """Splits a length of time into successive parts, until none is left."""

    left_s: float

    def take(self, seconds: float) -> float:
        taken_s = min(max(0.0, seconds), self.left_s)
        self.left_s -= taken_s
        return taken_s


def start_parts(request: RecordedRequest) -> Sequence[Part] | None:
    """Splits the time to the first token, or to its due time if it came later.

    Real seconds add up to that time at the client, predicted ones to the predicted TTFT. None if a
    time is missing.
    """
    record, seen_s = request.record, request.judged.seen.ttft_s
    if record is None or record.outcome is None or seen_s is None:
        return None
    outcome, predicted_s = record.outcome, record.placement.predicted_ttft_s
    if outcome.ttft_s is None or predicted_s is None:
        return None
    if outcome.held_s is None or outcome.queue_s is None or outcome.prefill_s is None:
        return None
    until_s = min(seen_s, request.judged.ttft_target_s)
    delivery_s = min(seen_s - outcome.ttft_s, until_s)
    clipped = _Clipped(until_s - delivery_s)
    waited_s = clipped.take(record.query.waited_s)
    answer_s = clipped.take(outcome.held_s - record.query.waited_s)
    queue_s = clipped.take(outcome.queue_s)
    prefill_s = clipped.take(outcome.prefill_s)
    moved_s = clipped.take(outcome.ttft_s - outcome.held_s - outcome.queue_s - outcome.prefill_s)
    idle_s = _idle_s(record.before_first, queue_s, prefill_s)
    queue_s -= idle_s
    model_s = _model_s(record.before_first)
    in_queue_s = model_s * queue_s / ((queue_s + prefill_s) or 1.0)
    ahead_s = _predicted_queue_s(record, predicted_s)
    return (
        Part(
            cause=Cause.QUEUE,
            real_s=waited_s + queue_s - in_queue_s,
            predicted_s=ahead_s,
        ),
        Part(
            cause=Cause.PREFILL,
            real_s=prefill_s - (model_s - in_queue_s),
            predicted_s=predicted_s - ahead_s,
        ),
        Part(cause=Cause.TRANSFER, real_s=moved_s),
        Part(cause=Cause.MODEL, real_s=model_s),
        Part(cause=Cause.DELIVERY, real_s=delivery_s + answer_s + idle_s + clipped.left_s),
    )


def pace_parts(request: RecordedRequest) -> Sequence[Part] | None:
    """Splits the time from the first token to the last in the same way; None without a second."""
    record, seen = request.record, request.judged.seen
    if record is None or record.outcome is None or seen.tpot_s is None:
        return None
    outcome, pace_s = record.outcome, record.placement.predicted_tpot_s
    if outcome.tpot_s is None or pace_s is None:
        return None
    gaps = outcome.output_tokens - 1
    total_s = gaps * outcome.tpot_s
    moved_s = _moved_after_first_s(outcome)
    decode_s = total_s - moved_s
    model_s = _model_s(record.after_first) * decode_s / (total_s or 1.0)
    own_gaps = gaps - (moved_s > 0)
    transfer_s = 0.0
    if moved_s > 0:
        transfer_s = (_way(record).transfer_s or 0.0) + pace_s
    return (
        Part(cause=Cause.TRANSFER, real_s=moved_s, predicted_s=transfer_s),
        Part(cause=Cause.DECODE, real_s=decode_s - model_s, predicted_s=own_gaps * pace_s),
        Part(cause=Cause.MODEL, real_s=model_s),
        Part(cause=Cause.DELIVERY, real_s=seen.tpot_s * (len(seen.token_times_s) - 1) - total_s),
    )


def _idle_s(sums: StepSums | None, queue_s: float, prefill_s: float) -> float:
    """Seconds of the queue time without a step: the request had not reached the engine yet."""
    if sums is None:
        return 0.0
    return min(max(0.0, queue_s + prefill_s - sums.real_s), queue_s)


def _way(record: Explanation) -> PlacementOption:
    """The placement mode that was chosen: the first one considered."""
    return record.ways[0] if record.ways else PlacementOption(way=record.placement.way)


def _predicted_queue_s(record: Explanation, predicted_s: float) -> float:
    """Predicted seconds before its prompt: the time waited, and the prompts ahead of it."""
    waited_s = min(record.query.waited_s, predicted_s)
    return min(waited_s + (_way(record).queue_s or 0.0), predicted_s)


def _moved_after_first_s(outcome: Outcome) -> float:
    """Seconds of KV transfer after the first token; 0 on one engine, or if it came before it."""
    if outcome.transfer_s is None or outcome.ttft_s is None:
        return 0.0
    before_s = (outcome.held_s or 0.0) + (outcome.queue_s or 0.0) + (outcome.prefill_s or 0.0)
    waited_for_kv = outcome.ttft_s - before_s > outcome.transfer_s / 2
    return 0.0 if waited_for_kv else outcome.transfer_s


def _model_s(sums: StepSums | None) -> float:
    """Seconds that the steps took beyond their expected times; negative if quicker."""
    return 0.0 if sums is None else sums.real_s - sums.expected_s
