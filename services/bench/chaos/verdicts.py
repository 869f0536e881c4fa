"""Judges every answer, and the growth of processes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.bench.chaos.answer import Answer
from services.bench.chaos.faults import Fault, Kind
from services.bench.chaos.processes import Use, is_core
from shared.requests import Explanation

_WHOLE: Final = ("stop", "length")
_SHOWN: Final = 10
_RSS_SPREAD_MIB, _RSS_SPREAD = 64.0, 0.1  # allowed growth of a process with an unchanged load
_MIB_PER_GIB: Final = 1024
# On CPU an engine core keeps up to 1,024 compiled kernels, one per shape of a step (oneDNN's
# primitive cache), about half a MiB each.
_KERNELS_MIB: Final = 512.0
_FILES_SPREAD, _THREADS_SPREAD, _TASKS_SPREAD = 16, 16, 16  # connections and pools that come and go


class Verdict(StrEnum):
    """The result of one request."""

    RIGHT = "right"
    WRONG = "wrong"
    REFUSED = "refused"
    FAILED = "failed"
    GATEWAY_LOST = "gateway lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRecord:
    """One fault and its times. `recovered_at_s` is when all engines served again."""

    fault: Fault
    began_at_s: float
    ended_at_s: float
    recovered_at_s: float | None  # None: not within the time limit

    @property
    def over_at_s(self) -> float:
        return self.ended_at_s if self.recovered_at_s is None else self.recovered_at_s

    def concerns(self, answer: Answer) -> bool:
        return answer.began_at_s < self.over_at_s and answer.ended_at_s > self.began_at_s

    def took_gateway(self, answer: Answer) -> bool:
        """Whether the fault killed the gateway of this request, and so its connection."""
        killed = self.fault.kind is Kind.KILL_HOST
        return killed and self.fault.target == f"gateway-{answer.gateway}" and self.concerns(answer)


def verdict(
    answer: Answer, undisturbed: Mapping[int, Answer], faults: Sequence[FaultRecord]
) -> Verdict:
    if answer.refusal:
        return Verdict.REFUSED
    if answer.fault:
        lost = answer.disconnected and any(one.took_gateway(answer) for one in faults)
        return Verdict.GATEWAY_LOST if lost else Verdict.FAILED
    right = answer.content == undisturbed[answer.number].content
    return Verdict.RIGHT if right else Verdict.WRONG


def twice_promised(decisions: Sequence[Explanation]) -> list[str]:
    """Ids of sequences that completed under more than one decision."""
    ended = Counter(
        one.query.request_id.partition("~")[0]
        for one in decisions
        if one.outcome is not None and one.outcome.finished in _WHOLE
    )
    return [name for name, count in ended.items() if count > 1]


def growth(
    before: Mapping[str, Use], after: Mapping[str, Use], kv_cache_gib: float
) -> Iterator[str]:
    """Lines on processes that grew, over the whole run, by more than the allowed spread.

    The memory of an engine core grows with the first use of KV blocks and with new step shapes.
    """
    of_core_mib = kv_cache_gib * _MIB_PER_GIB + _KERNELS_MIB
    for name, old in before.items():
        new = after.get(name)
        if new is None or new.pid != old.pid:
            continue
        spread_mib = _RSS_SPREAD_MIB + (of_core_mib if is_core(name) else 0.0)
        if new.rss_mib > old.rss_mib * (1 + _RSS_SPREAD) + spread_mib:
            yield f"{name} grew from {old.rss_mib:g} to {new.rss_mib:g} MiB"
        if new.files > old.files + _FILES_SPREAD:
            yield f"{name} has {new.files} files open, {old.files} at the start"
        if new.threads > old.threads + _THREADS_SPREAD:
            yield f"{name} has {new.threads} threads, {old.threads} at the start"
        if (new.tasks or 0) > (old.tasks or 0) + _TASKS_SPREAD:
            yield f"{name} has {new.tasks} tasks, {old.tasks} at the start"


def faults_of_answers(
    answers: Sequence[Answer], undisturbed: Mapping[int, Answer], faults: Sequence[FaultRecord]
) -> list[str]:
    """Lines on the first answers that were wrong or failed."""
    found = []
    for one in answers:
        became = verdict(one, undisturbed, faults)
        if became in (Verdict.WRONG, Verdict.FAILED):
            during = ", ".join(str(fault.fault) for fault in faults if fault.concerns(one))
            what = one.fault or _difference(one, undisturbed[one.number])
            found.append(f"{one.kind} {one.number} {became.value} during [{during}]: {what}")
    return found[:_SHOWN]


def _difference(one: Answer, other: Answer) -> str:
    if one.texts == other.texts:
        return f"{one.finishes} {one.tokens} tokens, not {other.finishes} {other.tokens}"
    indexes = sorted({*one.texts, *other.texts})
    index = next(at for at in indexes if one.texts.get(at) != other.texts.get(at))
    text = other.texts.get(index, "")
    given = one.texts.get(index, "")
    at = next(
        (at for at, pair in enumerate(zip(given, text, strict=False)) if pair[0] != pair[1]),
        min(len(given), len(text)),
    )
    return f"differs from character {at}: {given[at : at + 20]!r}, not {text[at : at + 20]!r}"
