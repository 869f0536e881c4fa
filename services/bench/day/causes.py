"""Why a request that was promised something did not get it: its time, part by part, beside what was
predicted of it. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.bench.day.records import Lived
from shared.requests import Admission, Explanation, Outcome, Reason, StepSums, WayConsidered


class Cause(StrEnum):
    """Where time was lost. `LOST`: nobody can tell, for record, end or times are missing."""

    QUEUE = "queue"  # held by the planner, then without a part in the engine's steps
    PREFILL = "prefill"  # its prompt took more steps than predicted, or fuller ones
    TRANSFER = "transfer"  # of KV, with the decode engine's first step
    DECODE = "decode interference"  # its tokens came in fewer steps, or in fuller ones
    MODEL = "model error"  # steps took longer than the step times said of just these
    DELIVERY = "delivery"  # on the way between client, gateway, planner and engine
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a time. Negative real seconds: steps were quicker than their table says."""

    cause: Cause
    real_s: float
    predicted_s: float = 0.0

    @property
    def excess_s(self) -> float:
        return self.real_s - self.predicted_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """A broken promise with the cause that dominates, and what each cause took beyond what was
    predicted, in seconds, of the first target that was missed. `late_by` is the worst quotient of
    real and asked.
    """

    lived: Lived
    cause: Cause
    excess_s: dict[Cause, float]
    missed_ttft: bool
    missed_tpot: bool
    late_by: float


def was_promised(lived: Lived) -> bool:
    """By the planner's record; without one nothing is known to have been promised."""
    placement = lived.record.placement if lived.record else None
    return (
        placement is not None
        and placement.admission is Admission.ADMITTED
        and placement.reason is not Reason.NO_TARGET
    )


def miss_of(lived: Lived) -> Miss | None:
    """None for what was kept or never promised."""
    if not was_promised(lived) or lived.judged.is_met:
        return None
    seen, judged = lived.judged.seen, lived.judged
    ttft = (seen.ttft_s or 0.0) / judged.ttft_target_s
    tpot = (seen.tpot_s or 0.0) / judged.tpot_target_s
    excess = _excess(lived, missed_ttft=ttft > 1)
    return Miss(
        lived=lived,
        cause=max(excess, key=lambda one: excess[one]) if excess else Cause.LOST,
        excess_s=excess,
        missed_ttft=ttft > 1,
        missed_tpot=tpot > 1,
        late_by=max(ttft, tpot),
    )


def _excess(lived: Lived, *, missed_ttft: bool) -> dict[Cause, float]:
    """Of the first target that was missed: a request that starts late is promised nothing any more,
    and its pace is what is left over. Empty where it cannot be told.
    """
    parts = (start_parts(lived) if missed_ttft else pace_parts(lived)) or ()
    return {part.cause: part.excess_s for part in parts}


@dataclass(slots=True)
class _Clipped:
    """Hands out lengths of time one after the other, until there is none left."""

    left_s: float

    def take(self, seconds: float) -> float:
        taken_s = min(max(0.0, seconds), self.left_s)
        self.left_s -= taken_s
        return taken_s


def start_parts(lived: Lived) -> Sequence[Part] | None:
    """The time to the first token, or to the moment at which it was due, when it came later: what
    comes after that is but a consequence. Real seconds add up to that time as the client saw it,
    predicted ones to the predicted TTFT. None where a time is missing.
    """
    record, seen_s = lived.record, lived.judged.seen.ttft_s
    if record is None or record.outcome is None or seen_s is None:
        return None
    outcome, predicted_s = record.outcome, record.placement.predicted_ttft_s
    if outcome.ttft_s is None or predicted_s is None:
        return None
    if outcome.held_s is None or outcome.queue_s is None or outcome.prefill_s is None:
        return None
    until_s = min(seen_s, lived.judged.ttft_target_s)
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


def pace_parts(lived: Lived) -> Sequence[Part] | None:
    """The time from the first token to the last, likewise; None where there is no second one."""
    record, seen = lived.record, lived.judged.seen
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
    """How much of the time in the engine's queue no step ran there: it had not arrived yet."""
    if sums is None:
        return 0.0
    return min(max(0.0, queue_s + prefill_s - sums.real_s), queue_s)


def _way(record: Explanation) -> WayConsidered:
    """The one that it went: the first."""
    return record.ways[0] if record.ways else WayConsidered(way=record.placement.way)


def _predicted_queue_s(record: Explanation, predicted_s: float) -> float:
    """What it had waited, and the estimate of the prompts before its own; the rest of what was
    predicted is for its own, which goes in small chunks where there is time.
    """
    waited_s = min(record.query.waited_s, predicted_s)
    return min(waited_s + (_way(record).queue_s or 0.0), predicted_s)


def _moved_after_first_s(outcome: Outcome) -> float:
    """0 on one engine, and where the first token itself had to wait for the KV."""
    if outcome.transfer_s is None or outcome.ttft_s is None:
        return 0.0
    before_s = (outcome.held_s or 0.0) + (outcome.queue_s or 0.0) + (outcome.prefill_s or 0.0)
    waited_for_kv = outcome.ttft_s - before_s > outcome.transfer_s / 2
    return 0.0 if waited_for_kv else outcome.transfer_s


def _model_s(sums: StepSums | None) -> float:
    """How much longer the steps took than expected; negative where they were quicker."""
    return 0.0 if sums is None else sums.real_s - sums.expected_s
