"""Judges whether a request kept its targets, from the times at its client."""

from dataclasses import dataclass
from enum import StrEnum

from services.bench.capacity.workload import Offered

_ROUNDING = 1 + 1e-9


class Ended(StrEnum):
    """How an answer ended for its client."""

    DONE = "done"
    REFUSED = "refused"
    CUT = "cut"  # by us: the point was over
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request at its client; times count from the intended sending.

    `token_times_s` has one entry for each token that came. `cut_at_s` is when the bench stopped
    waiting. `admission` and `reason` are the answer's; empty if it has none.
    """

    offered: Offered
    ended: Ended
    sent_late_s: float = 0.0
    token_times_s: tuple[float, ...] = ()
    cut_at_s: float = 0.0
    admission: str = ""
    reason: str = ""
    message: str = ""

    @property
    def ttft_s(self) -> float | None:
        """Time to the first token; of a request cut before that, the time that it had waited."""
        if self.token_times_s:
            return self.token_times_s[0]
        return self.cut_at_s if self.ended is Ended.CUT else None

    @property
    def tpot_s(self) -> float | None:
        """The mean time of a token after the first; None without a second."""
        times_s = self.token_times_s
        return (times_s[-1] - times_s[0]) / (len(times_s) - 1) if len(times_s) > 1 else None

    @property
    def was_admitted(self) -> bool:
        return self.ended is not Ended.REFUSED and self.admission in ("", "admitted")

    @property
    def was_not_promised(self) -> bool:
        """Refused or best effort; `reason` says why."""
        return not self.was_admitted

    @property
    def was_best_effort(self) -> bool:
        return self.admission == "best_effort"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One request beside its targets."""

    seen: Seen
    ttft_target_s: float
    tpot_target_s: float

    @property
    def is_promise_answered(self) -> bool:
        """Admitted and completed. Refused, best-effort and unfinished requests count as missed."""
        return self.seen.ended is Ended.DONE and self.seen.was_admitted

    @property
    def is_met(self) -> bool:
        """TTFT and mean TPOT within their targets."""
        ttft_s, tpot_s = self.seen.ttft_s, self.seen.tpot_s
        if not self.is_promise_answered or ttft_s is None:
            return False
        slow = tpot_s is not None and tpot_s > self.tpot_target_s * _ROUNDING
        return ttft_s <= self.ttft_target_s * _ROUNDING and not slow

    @property
    def is_met_at_every_token(self) -> bool:
        """Deadline pacing: token n came by the TTFT target plus n - 1 TPOT targets."""
        if not self.is_promise_answered:
            return False
        due_s = (
            self.ttft_target_s + number * self.tpot_target_s
            for number in range(len(self.seen.token_times_s))
        )
        pairs = zip(self.seen.token_times_s, due_s, strict=True)
        return all(time_s <= by_s * _ROUNDING for time_s, by_s in pairs)
