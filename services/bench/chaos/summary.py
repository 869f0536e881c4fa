"""Summarizes a run of `bench chaos` as one JSON object."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from services.bench.chaos.answer import Answer
from services.bench.chaos.run import Found
from services.bench.chaos.verdicts import (
    FaultRecord,
    Verdict,
    faults_of_answers,
    growth,
    twice_promised,
    verdict,
)
from shared.requests import Explanation


def summary_json(
    found: Found, decisions: Sequence[Explanation], left: Sequence[str], kv_cache_gib: float
) -> dict[str, Any]:
    """The summary; its `problems` are empty if all is well.

    `left` names processes and shared memory that outlived the fleet.
    """
    problems = [
        *faults_of_answers(found.answers, found.undisturbed, found.faults),
        *(f"hostile: {line}" for line in found.wrongly_answered),
        *(
            f"{one.fault}: not all serve again"
            for one in found.faults
            if one.recovered_at_s is None
        ),
        *(f"{name} was answered twice" for name in twice_promised(decisions)),
        *growth(found.used_before, found.used_after, kv_cache_gib),
        *([f"still held: {found.held}"] if found.held else []),
        *(f"left behind: {what}" for what in left),
    ]
    return {
        "seconds": round(found.ended_at_s - found.began_at_s, 1),
        "all": _counts(found.answers, found),
        "kinds": {
            kind: _counts([one for one in found.answers if one.kind == kind], found)
            for kind in sorted({one.kind for one in found.answers})
        },
        "faults": [_fault(one, found) for one in found.faults],
        "hostile_answers": found.hostile_answers,
        "decisions": len(decisions),
        "used": {
            name: {
                "before": use.as_json(),
                "after": found.used_after[name].as_json() if name in found.used_after else None,
            }
            for name, use in found.used_before.items()
        },
        "problems": problems,
    }


def _counts(answers: Sequence[Answer], found: Found) -> dict[str, Any]:
    became = Counter(verdict(one, found.undisturbed, found.faults) for one in answers)
    causes = Counter(str(move.get("cause")) for one in answers for move in one.moves)
    refusals = Counter(one.refusal for one in answers if one.refusal)
    return {
        "answers": len(answers),
        **{one.name.lower(): became[one] for one in Verdict},
        "longest_pause_s": round(max((one.longest_pause_s for one in answers), default=0.0), 2),
        "moves": dict(causes),
        "refusals": dict(refusals.most_common(3)),
    }


def _fault(record: FaultRecord, found: Found) -> dict[str, Any]:
    concerned = [one for one in found.answers if record.concerns(one)]
    recovered_at_s, ended_at_s = record.recovered_at_s, record.ended_at_s
    recovery_s = None if recovered_at_s is None else round(recovered_at_s - ended_at_s, 1)
    return {
        "at_s": round(record.began_at_s - found.began_at_s, 1),
        "fault": str(record.fault),
        "serve_again_s": recovery_s,
        **_without(_counts(concerned, found), "refusals"),
    }


def _without(counts: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in counts.items() if key != name}
