"""Computes from a request's scope how well it was served."""

from typing import Any

from services.gateway.scope import RequestScope, SequenceRecord
from shared.requests import Admission, Pacing, Placement, SloTargets


def slo_report(scope: RequestScope) -> dict[str, Any]:
    """The `slo` object of an answer; times in milliseconds, null where unknown or not asked for.

    With several sequences the numbers are those of the worst one. Each stage is judged by its own
    TPOT target, from the last token of the stage before it to its own last one. Under deadline
    pacing each token is judged by its due time instead of a mean.
    """
    worst = max(scope.sequences.values(), key=lambda one: lateness(scope, one), default=None)
    placement = worst.placement if worst else None
    report = {
        "class": scope.targets.class_name,
        "targets": _targets(scope.targets_in_force, placement),
        "achieved": {
            "ttft_ms": milliseconds(scope.ttft_s(worst) if worst else None),
            "tpot_ms": milliseconds(worst.tpot_s if worst else None),
            **_stages(worst),
            **_worst_lateness(scope, worst),
        },
        "met": met(scope),
        **_placed(placement),
        "recomputed": any(one.recomputed for one in scope.sequences.values()),
    }
    if moves := [move for one in scope.sequences.values() for move in one.moves]:
        report["moves"] = [
            {"cause": one.cause.value, "engine": one.engine, "after_tokens": one.after_tokens}
            for one in moves
        ]
    if len(scope.sequences) > 1:
        report["decision_ids"] = decision_ids(scope)
    return report


def met(scope: RequestScope) -> bool | None:
    """Whether every sequence kept every target; None without an SLO."""
    if scope.targets_in_force.asks_for_nothing:
        return None
    return bool(scope.sequences) and all(
        lateness(scope, one) <= 1 for one in scope.sequences.values()
    )


def attained(scope: RequestScope) -> bool | None:
    """As `met`, for the attainment counter: only a promise that was kept counts."""
    outcome = met(scope)
    if outcome is None:
        return None
    return outcome and all(
        one.placement is not None and one.placement.admission is Admission.ADMITTED
        for one in scope.sequences.values()
    )


def lateness(scope: RequestScope, sequence: SequenceRecord) -> float:
    """The greatest ratio of achieved to target time; infinite without a token, 0 without an SLO."""
    ttft_s, targets = scope.ttft_s(sequence), scope.targets_in_force
    if ttft_s is None:
        return 0.0 if targets.asks_for_nothing else float("inf")
    ttft_target_s = _ttft_target_s(targets, sequence.placement)
    late = max(ttft_s / ttft_target_s if ttft_target_s else 0.0, pace_lateness(sequence) or 0.0)
    if sequence.line is None and targets.tpot_s and sequence.tpot_s is not None:
        late = max(late, sequence.tpot_s / targets.tpot_s)
    return late


def pace_lateness(sequence: SequenceRecord) -> float | None:
    """As `lateness`, of the tokens after the first, by their deadlines or by the slowest stage.

    None without deadline pacing and without stages.
    """
    judged = sequence.line or sequence.stages
    return judged.lateness if judged else None


def decision_ids(scope: RequestScope) -> list[str]:
    """Every decision about this request, once each, in the order of its sequences."""
    placements = [one.placement for one in scope.sequences.values() if one.placement]
    return list(dict.fromkeys(placement.decision_id for placement in placements))


def milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _ttft_target_s(targets: SloTargets, placement: Placement | None) -> float | None:
    """The target in force: the planner resolves a slowdown."""
    if placement is not None and placement.ttft_s is not None:
        return placement.ttft_s
    return targets.ttft_s


def _stages(sequence: SequenceRecord | None) -> dict[str, Any]:
    """The entry `stages`; empty for a request without stages."""
    if sequence is None or sequence.stages is None:
        return {}
    return {
        "stages": [
            {
                "name": stage.name,
                "output_tokens": stage.output_tokens,
                "tpot_ms": milliseconds(stage.tpot_s),
            }
            for stage in sequence.stages.stages
        ]
    }


def _worst_lateness(scope: RequestScope, sequence: SequenceRecord | None) -> dict[str, Any]:
    """The entry `worst_lateness`; empty without deadline pacing, null before the first token."""
    if sequence is None or sequence.line is None:
        return {}
    began = sequence.first_token_at_s is not None
    return {"worst_lateness": round(lateness(scope, sequence), 3) if began else None}


def _targets(targets: SloTargets, placement: Placement | None) -> dict[str, Any]:
    named: dict[str, Any] = {
        "ttft_ms": milliseconds(_ttft_target_s(targets, placement)),
        "tpot_ms": milliseconds(targets.tpot_s),
    }
    if targets.ttft_slowdown is not None:
        named["ttft_slowdown"] = targets.ttft_slowdown
    if targets.stages:
        named["stages"] = [
            {"name": stage.name, "tpot_ms": milliseconds(stage.tpot_s)} for stage in targets.stages
        ]
    if Pacing.DEADLINES in (targets.pacing, placement.pacing if placement else None):
        named["pacing"] = Pacing.DEADLINES.value
    return named


def _placed(placement: Placement | None) -> dict[str, Any]:
    if placement is None:
        return {
            "admission": None,
            "reason": None,
            "way": None,
            "engines": {"prefill": None, "decode": None},
            "decision_id": None,
            "predicted": {"ttft_ms": None, "tpot_ms": None},
        }
    return {
        "admission": placement.admission.value,
        "reason": placement.reason.value,
        "way": placement.way.value if placement.runs else None,
        "engines": {
            "prefill": placement.prefill.name if placement.prefill else None,
            "decode": placement.decode.name if placement.decode else None,
        },
        "decision_id": placement.decision_id,
        "predicted": predicted(placement),
    }


def predicted(placement: Placement) -> dict[str, float | None]:
    return {
        "ttft_ms": milliseconds(placement.predicted_ttft_s),
        "tpot_ms": milliseconds(placement.predicted_tpot_s),
    }
