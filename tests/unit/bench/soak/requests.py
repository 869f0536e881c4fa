"""Requests of a soak test, made by hand: what the client saw and what the planner recorded."""

from typing import Any

from services.bench.capacity.judge import Ended, Judged, Seen
from services.bench.capacity.workload import Offered
from services.bench.soak.records import RecordedRequest, name_of
from shared.requests import (
    Admission,
    EngineRef,
    Explanation,
    Outcome,
    Placement,
    PlacementMode,
    PlacementOption,
    PlacementQuery,
    Reason,
    SloTargets,
    StepSums,
)

P, D = (EngineRef(name=name, engine_id=name, address=name) for name in ("p0", "d0"))
TTFT_S, TPOT_S = 1.0, 0.1  # asked for
GAPS = 10  # between the tokens of an answer


def sums(engine: str = "d0", *, real_s: float = 0.0, expected_s: float = 0.0) -> StepSums:
    return StepSums(
        engine=engine,
        steps=10,
        real_s=real_s,
        expected_s=expected_s,
        sure_s=expected_s,
        beyond_sure=1,
        worst_excess_s=0.01,
        prefill_tokens=100,
        decode_tokens=10,
    )


def judged(
    ttft_s: float | None, tpot_s: float = 0.05, ended: Ended = Ended.DONE, **seen: Any
) -> Judged:
    """An answer of eleven tokens."""
    times_s = () if ttft_s is None else tuple(ttft_s + n * tpot_s for n in range(GAPS + 1))
    offered = Offered(at_s=0.0, class_name="chat", prompt_tokens=100, output_tokens=GAPS + 1)
    fields = {"admission": "admitted", "token_times_s": times_s} | seen
    return Judged(
        seen=Seen(offered=offered, ended=ended, **fields),
        ttft_target_s=TTFT_S,
        tpot_target_s=TPOT_S,
    )


def outcome(**changed: Any) -> Outcome:
    """First token after 0.5 s, then one every 0.05 s."""
    fields: dict[str, Any] = {
        "finished": "length",
        "output_tokens": GAPS + 1,
        "ttft_s": 0.5,
        "tpot_s": 0.05,
        "held_s": 0.1,
        "queue_s": 0.1,
        "prefill_s": 0.3,
    }
    return Outcome(decision_id="d-1", request_id="r", **(fields | changed))


def record(
    ended: Outcome | None,
    *,
    number: int = 0,
    client_id: str = "",
    transfer_s: float = 0.0,
    before: StepSums | None = None,
    after: StepSums | None = None,
    **placement: Any,
) -> Explanation:
    """Promised after 0.1 s: first token at 0.5 s, of these 0.1 behind others, then 0.05 each."""
    fields: dict[str, Any] = {
        "admission": Admission.ADMITTED,
        "reason": Reason.NONE,
        "decode": D,
        "predicted_ttft_s": 0.5,
        "predicted_tpot_s": 0.05,
    }
    placed = Placement(decision_id=f"d-{number}", **(fields | placement))
    return Explanation(
        query=PlacementQuery(
            request_id=f"cmpl-5f{number}",
            group_id=f"cmpl-5f{number}",
            client_id=client_id or name_of(number),
            model="m",
            targets=SloTargets(ttft_s=TTFT_S, tpot_s=TPOT_S),
            prompt_tokens=100,
            max_output_tokens=GAPS + 1,
            waited_s=0.1,
        ),
        placement=placed,
        decided_at_epoch_s=0.0,
        ways=(PlacementOption(way=placed.way, queue_s=0.1, transfer_s=transfer_s),),
        outcome=ended,
        before_first=before,
        after_first=after,
    )


def late_start(
    *, before: StepSums | None = None, seen_s: float = 2.0, **times: float
) -> RecordedRequest:
    """The first token came late; `times` say where it was lost."""
    ended = outcome(ttft_s=sum(outcome_parts(times).values()), **times)
    return RecordedRequest(judged=judged(seen_s), record=record(ended, before=before))


def outcome_parts(times: dict[str, float]) -> dict[str, float]:
    return {"held_s": 0.1, "queue_s": 0.1, "prefill_s": 0.3} | times


def kept() -> RecordedRequest:
    return RecordedRequest(judged=judged(0.5), record=record(outcome()))


def moved(ended: Outcome, *, tpot_s: float = 0.2, after: StepSums | None = None) -> RecordedRequest:
    """Disaggregated, with 0.02 s foreseen for the KV, and too slow after the first token."""
    one = record(ended, transfer_s=0.02, after=after, way=PlacementMode.DISAGGREGATED, prefill=P)
    return RecordedRequest(judged=judged(0.5, tpot_s), record=one)
