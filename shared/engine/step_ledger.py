"""What an engine's steps did, kept until each is over, and the reports of it. Knows neither vLLM
nor a clock.
"""

import math
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shared.batch_time import Step
from shared.batch_time.table import (
    CHUNKS,
    COUNTS,
    DECODE_CONTEXT,
    DECODES,
    EARLIER,
    LONGEST_CONTEXT,
    LONGEST_PROMPT,
    PAIRS,
    PREFILL,
    SPECULATED,
    SPECULATION_STEPS,
    FloatArray,
)
from shared.engine.request_rows import Flight, Late
from shared.engine.step_times import StepTimes
from shared.engines import Drafts, KvTransfer, PrefixNews, StepReport
from shared.scheduling.rows import Rows, shared_to_wire, to_wire

_TELL_EVERY_S = 0.02  # while steps go on: a report costs as much as forming a step
_GAIN_KEPT = 0.95  # of what is known of a class's accepted drafts, with each verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one request got of a step. `earlier_tokens` were computed before."""

    tokens: int
    drafted_tokens: int
    earlier_tokens: int
    gives: bool


def counts_of(shares: Iterable[Share]) -> FloatArray:
    """The step's counts as the step former has them: one token that gives the next is a decode."""
    counts = np.zeros(COUNTS)
    for one in shares:
        own = one.tokens - one.drafted_tokens
        if one.gives and own <= 1:
            counts[DECODES] += own
            counts[SPECULATED] += one.drafted_tokens
            counts[SPECULATION_STEPS] = max(counts[SPECULATION_STEPS], one.drafted_tokens)
            counts[DECODE_CONTEXT] += one.earlier_tokens
            counts[LONGEST_CONTEXT] = max(counts[LONGEST_CONTEXT], one.earlier_tokens)
        else:
            counts[CHUNKS] += 1
            counts[PREFILL] += own
            counts[EARLIER] += one.earlier_tokens
            counts[PAIRS] += own * (one.earlier_tokens + own / 2)
            counts[LONGEST_PROMPT] = max(counts[LONGEST_PROMPT], one.earlier_tokens + own)
    return counts


@dataclass(slots=True, kw_only=True, eq=False)
class StepBook:
    """One step from its start to its end."""

    started_at_s: float
    counts: FloatArray
    expected_s: float = 0.0
    flight: Flight | None = None

    @property
    def step(self) -> Step:
        counts = self.counts.tolist()  # plain floats: all that is computed from them is in Python
        return Step(
            decodes=counts[DECODES],
            speculated_tokens=counts[SPECULATED],
            speculation_steps=counts[SPECULATION_STEPS],
            decode_context_tokens=counts[DECODE_CONTEXT],
            longest_context_tokens=counts[LONGEST_CONTEXT] or None,
            chunks=counts[CHUNKS],
            prefill_tokens=counts[PREFILL],
            earlier_tokens=counts[EARLIER],
            attention_pairs=counts[PAIRS],
            longest_prompt_tokens=counts[LONGEST_PROMPT],
        )

    @property
    def is_empty(self) -> bool:
        return not self.counts[PREFILL] + self.counts[DECODES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the engine stands between two steps."""

    running: int
    waiting: int
    free_kv_blocks: int
    queued_prefill_tokens: int
    adapters: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ended:
    """A step that is over and not reported yet."""

    book: StepBook
    duration_s: float
    late: Late
    at_s: float


@dataclass(slots=True)
class DraftLedger:
    """What became of drafted tokens, by class: since the last report, and on average of late."""

    _since: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    _accepted: dict[str, float] = field(default_factory=dict)

    def observe(self, class_name: str, drafted_tokens: int, accepted_tokens: int) -> None:
        since = self._since[class_name]
        since[0] += 1
        since[1] += drafted_tokens
        since[2] += accepted_tokens
        before = self._accepted.get(class_name, float(accepted_tokens))
        self._accepted[class_name] = _GAIN_KEPT * before + (1 - _GAIN_KEPT) * accepted_tokens

    def gain(self, class_name: str) -> float:
        """Tokens that a step with drafts gives a request of this class on average."""
        return 1.0 + self._accepted.get(class_name, 0.0)

    def take(self) -> tuple[Drafts, ...]:
        """Everything since the last call."""
        taken = tuple(
            Drafts(class_name=name, verifications=a, drafted_tokens=b, accepted_tokens=c)
            for name, (a, b, c) in self._since.items()
        )
        self._since.clear()
        return taken


@dataclass(slots=True)
class StepLedger:
    """Steps in flight, oldest first, and what goes into the next report."""

    times: StepTimes = field(default_factory=StepTimes)
    drafts: DraftLedger = field(default_factory=DraftLedger)
    finished: list[str] = field(default_factory=list)
    transfers_failed: int = 0
    transfers: list[KvTransfer] = field(default_factory=list)
    evicted: int = 0
    _step: int = 0
    _last_ended_at_s: float = 0.0
    _busy_until_s: float = 0.0
    _flying: deque[float] = field(default_factory=deque)  # expected seconds of each that runs
    _last: Standing | None = None
    _ended: list[_Ended] = field(default_factory=list)
    _told_at_s: float = -math.inf

    def starts_at_s(self, now: float) -> float:
        """When a step that is formed now begins: after those that run."""
        return max(now, self._busy_until_s)

    def began(self, book: StepBook) -> None:
        self._busy_until_s = self.starts_at_s(book.started_at_s) + book.expected_s
        self._flying.append(book.expected_s)

    def ended(self, book: StepBook, late: Late, now: float, *, at_leisure: bool = False) -> None:
        """The oldest step that runs is over. `at_leisure`: no request had a promise."""
        duration_s = self._took_s(book, now)
        if self.times.learns_at(now, at_leisure=at_leisure):
            self.times.observe(book.step, duration_s, now)
        self._ended.append(_Ended(book, duration_s, late, now))

    def may_wait(self, now: float) -> bool:
        """Whether the last report is so recent that another step may tell."""
        return now - self._told_at_s < _TELL_EVERY_S

    def reports(
        self, standing: Standing, rows: Rows, prefixes: PrefixNews, now: float
    ) -> list[StepReport]:
        """Of every step since the last call, or of what happened without one; none when nothing
        did. The last tells what happened beside the steps and how the requests stand.
        """
        nothing_new = not (self._ended or self.finished or self.transfers or prefixes)
        if nothing_new and standing == self._last:
            return []
        drafts = self.drafts.take()
        beside: dict[str, Any] = {
            "accepted_tokens": sum(one.accepted_tokens for one in drafts),
            "kv_transfers_failed": self.transfers_failed,
            "kv_transfers": tuple(self.transfers),
            "finished": tuple(self.finished),
            "evicted": self.evicted,
            "drafts": drafts,
            "requests": to_wire(rows, now),
            "shared_tokens": shared_to_wire(rows),
            "step_time": self.times.news(now),
            "prefixes": prefixes,
            "adapters": standing.adapters,
        }
        *before, last = self._ended or [_nothing(now)]
        told = [self._report(one, standing, now) for one in before]
        told.append(self._report(last, standing, now, **beside))
        self._last, self._told_at_s = standing, now
        self._ended.clear()
        self.finished.clear()
        self.transfers.clear()
        self.transfers_failed = self.evicted = 0
        return told

    def _took_s(self, book: StepBook, now: float) -> float:
        """Steps overlap under asynchronous scheduling: a step's time runs from the end of the one
        before.
        """
        duration_s = now - max(book.started_at_s, self._last_ended_at_s)
        self._last_ended_at_s = now
        self._flying.popleft()
        self._busy_until_s = now + sum(self._flying)
        return duration_s

    def _report(self, ended: _Ended, standing: Standing, now: float, **beside: Any) -> StepReport:
        counts = ended.book.counts.tolist()
        self._step += 1
        return StepReport(
            step=self._step,
            ended_at_s=ended.at_s,
            duration_s=ended.duration_s,
            prefill_tokens=int(counts[PREFILL]),
            decode_tokens=int(counts[DECODES]),
            decode_context_tokens=int(counts[DECODE_CONTEXT]),
            longest_context_tokens=int(counts[LONGEST_CONTEXT]),
            chunks=int(counts[CHUNKS]),
            earlier_tokens=int(counts[EARLIER]),
            attention_pairs=counts[PAIRS],
            longest_prompt_tokens=int(counts[LONGEST_PROMPT]),
            speculated_tokens=int(counts[SPECULATED]),
            running=standing.running,
            waiting=standing.waiting,
            queued_prefill_tokens=standing.queued_prefill_tokens,
            free_kv_blocks=standing.free_kv_blocks,
            predicted_s=ended.book.expected_s,
            busy_s=max(0.0, self._busy_until_s - now),
            late=ended.late.tokens,
            worst_late_s=ended.late.worst_s,
            **({"accepted_tokens": 0} | beside),
        )


def _nothing(now: float) -> _Ended:
    """In the place of a step where none was."""
    return _Ended(StepBook(started_at_s=now, counts=np.zeros(COUNTS)), 0.0, Late(), now)
