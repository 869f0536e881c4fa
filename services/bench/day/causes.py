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

    QUEUE = "queue"  # held by the planner, then without a part in any step
    PREFILL = "prefill"  # its prompt took more steps than predicted, or fuller ones
    TRANSFER = "transfer"  # of KV, with the decode engine's first step
    DECODE = "decode interference"  # its tokens came in fewer steps, or in fuller ones
    MODEL = "model error"  # steps took longer than the step times said of just these
    DELIVERY = "delivery"  # between client and gateway, late sending included
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
    predicted, in seconds. `late_by` is the worst quotient of real and asked.
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
    excess = _excess(lived, missed_ttft=ttft > 1, missed_tpot=tpot > 1)
    return Miss(
        lived=lived,
        cause=max(excess, key=lambda one: excess[one]) if excess else Cause.LOST,
        excess_s=excess,
        missed_ttft=ttft > 1,
        missed_tpot=tpot > 1,
        late_by=max(ttft, tpot),
    )


def _excess(lived: Lived, *, missed_ttft: bool, missed_tpot: bool) -> dict[Cause, float]:
    """Of the targets that were missed; empty where it cannot be told of any of them."""
    parts = [
        *((start_parts(lived) or ()) if missed_ttft else ()),
        *((pace_parts(lived) or ()) if missed_tpot else ()),
    ]
    excess: dict[Cause, float] = {}
    for part in parts:
        excess[part.cause] = excess.get(part.cause, 0.0) + part.excess_s
    return excess


def start_parts(lived: Lived) -> Sequence[Part] | None:
    """The time to the first token: real seconds add up to what the client saw, predicted ones to
    the predicted TTFT. None where a time is missing.
    """
    record, seen_s = lived.record, lived.judged.seen.ttft_s
    if record is None or record.outcome is None or seen_s is None:
        return None
    outcome, predicted_s = record.outcome, record.placement.predicted_ttft_s
    held_s, queue_s, prefill_s = outcome.held_s, outcome.queue_s, outcome.prefill_s
    if outcome.ttft_s is None or predicted_s is None:
        return None
    if held_s is None or queue_s is None or prefill_s is None:
        return None
    model_s = _model_s(record.before_first)
    in_queue_s = model_s * queue_s / ((queue_s + prefill_s) or 1.0)
    prompt_s = _predicted_prefill_s(record, predicted_s)
    moved_s = outcome.ttft_s - held_s - queue_s - prefill_s
    return (
        Part(
            cause=Cause.QUEUE,
            real_s=held_s + queue_s - in_queue_s,
            predicted_s=predicted_s - prompt_s,
        ),
        Part(cause=Cause.PREFILL, real_s=prefill_s - (model_s - in_queue_s), predicted_s=prompt_s),
        Part(cause=Cause.TRANSFER, real_s=moved_s),
        Part(cause=Cause.MODEL, real_s=model_s),
        Part(cause=Cause.DELIVERY, real_s=seen_s - outcome.ttft_s),
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


def _way(record: Explanation) -> WayConsidered:
    """The one that it went: the first."""
    return record.ways[0] if record.ways else WayConsidered(way=record.placement.way)


def _predicted_prefill_s(record: Explanation, predicted_s: float) -> float:
    """Of what was predicted after the decision, the estimate for its prompt; the rest is queue."""
    after_s = max(0.0, predicted_s - record.query.waited_s)
    return min(_way(record).prefill_s or 0.0, after_s)


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
