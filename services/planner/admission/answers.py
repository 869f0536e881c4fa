"""Builds placements, with messages in full sentences."""

import math

from services.planner.admission.candidates import Candidate, Goal, known
from shared.requests import (
    Admission,
    OnRefuse,
    Pacing,
    Placement,
    PlacementMode,
    PlacementQuery,
    Reason,
)
from shared.scheduling.grace import Grace

_AT_A_COST = "could be served in time only at the cost of promises given"
_NEVER = "asks for more than an idle engine here surely keeps"
_CROWDS = (
    "is of a class whose pace leaves too little of an engine to all that is asked for at present"
)


def refused(
    query: PlacementQuery,
    decision_id: str,
    reason: Reason,
    message: str,
    *,
    retry_after_s: float | None = None,
) -> Placement:
    """A refusal without a prediction."""
    return Placement(
        decision_id=decision_id,
        admission=Admission.REFUSED,
        reason=reason,
        message=message,
        way=query.forced_way or PlacementMode.COLOCATED,
        ttft_s=query.targets.ttft_s,
        tpot_s=query.targets.tightest_tpot_s,
        retry_after_s=retry_after_s,
    )


def deferred(query: PlacementQuery, decision_id: str, message: str, hold_s: float) -> Placement:
    """Asks the caller to wait: an engine left or the planner started a moment ago."""
    return Placement(
        decision_id=decision_id,
        admission=Admission.DEFERRED,
        reason=Reason.NO_ENGINE,
        message=f"{message} One may come back at any moment; ask again in {seconds(hold_s)}.",
        way=query.forced_way or PlacementMode.COLOCATED,
        ttft_s=query.targets.ttft_s,
        tpot_s=query.targets.tightest_tpot_s,
        hold_s=hold_s,
    )


def promised(
    query: PlacementQuery,
    decision_id: str,
    best: Candidate,
    goal: Goal,
    grace: Grace | None = None,
    delivery_s: float = 0.0,
) -> Placement:
    if query.targets.asks_for_nothing:
        nothing = "No target was asked for, so nothing is promised."
        return _run(query, decision_id, best, goal, Admission.ADMITTED, Reason.NO_TARGET, nothing)
    return _run(
        query, decision_id, best, goal, Admission.ADMITTED, Reason.NONE, "", grace, delivery_s
    )


def unknowable(query: PlacementQuery, decision_id: str, best: Candidate, goal: Goal) -> Placement:
    """Runs a request as best effort where its times are unknown: running requests reveal them."""
    why = "Too few steps of this kind have been reported yet, so no time can be promised"
    if query.targets.ttft_s is None and query.targets.ttft_slowdown is not None:
        why += (
            f" and a slowdown of {query.targets.ttft_slowdown:g} cannot be turned into seconds; "
            "the request runs with no target for its start"
        )
    return _run(query, decision_id, best, goal, Admission.BEST_EFFORT, Reason.COMPUTE, why + ".")


def missed(
    query: PlacementQuery,
    decision_id: str,
    best: Candidate,
    goal: Goal,
    best_idle: Goal,
    retry_after_s: float,
    over_in_s: float,
    *,
    reason: Reason | None = None,
    crowds: bool = False,
) -> Placement:
    """Best effort or a refusal, as the caller chose, where the targets cannot be promised.

    `best` is the best way now, `best_idle` what idle engines would give; `reason` None: derived
    from these. `crowds`: the class is left out. A retry is due when the overload is over, in
    `over_in_s`, and the queue has shrunk enough; where the TTFT holds, `retry_after_s` stands in
    for the queue.
    """
    if reason is None:
        reason = _why_missed(best, goal, best_idle)
    words = miss_words(best, goal) or (_NEVER if reason is Reason.NEVER else _AT_A_COST)
    sentence = f"This request {_CROWDS if crowds else words}"
    if query.targets.on_refuse is OnRefuse.BEST_EFFORT:
        text = f"{sentence}; it runs without a promise."
        return _run(query, decision_id, best, goal, Admission.BEST_EFFORT, reason, text)
    retry_s = (
        None if reason is Reason.NEVER else _retry_after_s(best, goal, retry_after_s, over_in_s)
    )
    advice = f"try again in {seconds(retry_s)}" if retry_s else "no engine here does it even idle"
    return Placement(
        decision_id=decision_id,
        admission=Admission.REFUSED,
        reason=reason,
        message=f"{sentence}; {advice}.",
        way=PlacementMode.COLOCATED if best.colocated else PlacementMode.DISAGGREGATED,
        ttft_s=_ttft_in_force(goal),
        tpot_s=goal.tpot_s,
        predicted_ttft_s=known(best.ttft_s),
        predicted_tpot_s=known(best.decode.tpot_s),
        retry_after_s=retry_s,
    )


def exceeds(idle: Goal, goal: Goal) -> bool:
    """Whether even an idle engine would miss the targets."""
    return _over(idle.ttft_s, goal.ttft_s) or _over(idle.tpot_s, goal.tpot_s)


def miss_words(candidate: Candidate, goal: Goal) -> str:
    """`would start after 1.9 s, 0.8 s were asked for`, and likewise for the pace."""
    words = []
    if candidate.misses_ttft(goal):
        assert goal.ttft_s is not None
        words.append(
            f"would start after {seconds(candidate.ttft_s)}, {seconds(goal.ttft_s)} were asked for"
        )
    if candidate.misses_tpot(goal):
        assert goal.tpot_s is not None
        words.append(
            f"would take {seconds(candidate.decode.tpot_s)} per token, "
            f"{seconds(goal.tpot_s)} were asked for"
        )
    return " and ".join(words)


def seconds(value_s: float) -> str:
    """A time as text: in milliseconds below a tenth of a second."""
    if math.isnan(value_s):
        return "an unknown time"
    return f"{value_s * 1000:.3g} ms" if value_s < 0.1 else f"{value_s:.3g} s"


def _run(
    query: PlacementQuery,
    decision_id: str,
    best: Candidate,
    goal: Goal,
    admission: Admission,
    reason: Reason,
    message: str,
    grace: Grace | None = None,
    delivery_s: float = 0.0,
) -> Placement:
    grace_s, pace_share = 0.0, 1.0
    if grace is not None and goal.tpot_s is not None and not grace.by_deadlines:
        grace_s, pace_share = grace.later_s, grace.pace_s / goal.tpot_s
    return Placement(
        decision_id=decision_id,
        admission=admission,
        reason=reason,
        message=message,
        way=PlacementMode.COLOCATED if best.colocated else PlacementMode.DISAGGREGATED,
        prefill=None if best.colocated else best.prefill.engine.ref,
        decode=best.decode.engine.ref,
        ttft_s=_ttft_in_force(goal),
        tpot_s=goal.tpot_s,
        predicted_ttft_s=known(best.ttft_s),
        predicted_tpot_s=known(best.decode.tpot_s),
        grace_s=grace_s,
        pace_share=pace_share,
        delivery_s=delivery_s,
        pacing=query.targets.pacing if _ttft_in_force(goal) is not None else Pacing.MEAN,
        prefix_source=None if best.pull is None else best.pull.wire,
    )


def _ttft_in_force(goal: Goal) -> float | None:
    return None if goal.ttft_s is None else known(goal.ttft_s)


def _why_missed(best: Candidate, goal: Goal, best_idle: Goal) -> Reason:
    if exceeds(best_idle, goal):
        return Reason.NEVER
    waits_for_room = best.prefill.room_s >= best.prefill.queue_s > 0
    return Reason.MEMORY if waits_for_room and best.misses_ttft(goal) else Reason.COMPUTE


def _over(value_s: float | None, limit_s: float | None) -> bool:
    return value_s is not None and limit_s is not None and value_s > limit_s


def _retry_after_s(best: Candidate, goal: Goal, least_s: float, over_in_s: float) -> float:
    """Seconds until the queue should have shrunk enough and the overload be over."""
    queue_s = least_s
    if goal.ttft_s is not None and best.misses_ttft(goal):
        queue_s = best.ttft_s - goal.ttft_s
    return max(0.1, round(max(queue_s, over_in_s), 1))
