"""The engine's side of its link to the planner: reports, policies, step times and drafts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.evaluation.engine_reports import engine_id_of, report_of
from services.evaluation.reported_prefixes import ReportedPrefixes
from services.planner.state.engine_state import EngineState
from shared.engine.step_ledger import DraftLedger, StepBook
from shared.engine.step_times import StepTimes
from shared.engines import KV_USED, KvTransfer, Policy, StepReport
from shared.scheduling.rows import COMPUTED, DRAFT, TOKENS_PER_STEP, TOTAL
from shared.scheduling.shares import KEPT, LONGEST_S, ONE
from shared.simulation.engine import SimEngine
from shared.simulation.system import Fetched

_LOST: Final = "lost"  # the source engine of the KV is gone


@dataclass(slots=True, eq=False)
class Attached:
    """One engine's link to the planner.

    `finished` and `transfers` are the requests that left and the KV transfers that ended since the
    last report, at `told_at_s`. `times` are the step times that the engine learns; None: it learns
    none.
    """

    state: EngineState
    times: StepTimes | None = None
    policy: Policy = field(default_factory=Policy)
    drafts: DraftLedger = field(default_factory=DraftLedger)
    finished: list[str] = field(default_factory=list)
    transfers: list[KvTransfer] = field(default_factory=list)
    told_at_s: float = 0.0
    _prefixes: ReportedPrefixes = field(default_factory=ReportedPrefixes)
    _told: tuple[int, float, int] = (-1, 0.0, 0)  # steps, end of the running one, requests
    _learned: tuple[int, float] = (0, 0.0)  # steps, and the seconds of all of them

    def has_news(self, engine: SimEngine) -> bool:
        """Whether a step has begun or ended, or a request came or left, since the last report."""
        stands = engine.steps, engine.ends_s, len(engine.rows)
        return stands != self._told or bool(self.finished or self.transfers)

    def report(self, engine: SimEngine, now: float) -> StepReport:
        """The report of all changes since the last call."""
        self._told, self.told_at_s = (engine.steps, engine.ends_s, len(engine.rows)), now
        report = report_of(
            engine,
            drafts=self.drafts.take(),
            finished=tuple(self.finished),
            transfers=tuple(self.transfers),
            step_time=self.times.news(now) if self.times else b"",
            prefixes=self._prefixes.news(engine),
            now=now,
        )
        self.finished.clear()
        self.transfers.clear()
        return report

    def fetched(self, fetched: Fetched, kv_bytes_per_token: float) -> None:
        """Notes the end of a KV transfer from another engine, whether it succeeded or failed."""
        self.transfers.append(
            KvTransfer(
                request_id=fetched.request.name,
                peer_engine_id=engine_id_of(fetched.source),
                transport=self.state.description.transports[0],
                bytes=int(fetched.tokens * kv_bytes_per_token),
                seconds=fetched.seconds,
                outcome=KV_USED if fetched.used else _LOST,
            )
        )

    def obey(self, policy: Policy, engine: SimEngine) -> None:
        """Applies a policy to the steps and drafts from now on."""
        self.policy = policy
        engine.limits[LONGEST_S] = policy.longest_step_s
        engine.limits[KEPT] = policy.kept_blocks

    def learn(self, engine: SimEngine, now: float) -> None:
        """Learns from the last step, by the counts that the engine still has."""
        steps, busy_s = self._learned
        if self.times is not None and engine.steps > steps:
            self._learned = engine.steps, engine.busy_s
            book = StepBook(started_at_s=now, counts=engine.counts)
            self.times.observe(book.step, engine.busy_s - busy_s, now)
            engine.table = self.times.table or engine.table

    def draft(self, engine: SimEngine, class_of: Mapping[int, str]) -> None:
        """Notes the drafts that the last step accepted, and sets the draft length of each row by
        its class. `class_of`: class names by index of the request.
        """
        self._note_drafts(engine, class_of)
        rows, names = engine.rows, [class_of[index] for index in engine.indexes.tolist()]
        rows[:, DRAFT] = self._allowed(names)
        gains = {name: self.drafts.gain(name) for name in set(names)}
        rows[:, TOKENS_PER_STEP] = [gains[name] for name in names]
        rows[rows[:, TOTAL] - rows[:, COMPUTED] > ONE, DRAFT] = 0.0

    def _note_drafts(self, engine: SimEngine, class_of: Mapping[int, str]) -> None:
        past, engine.drafted = engine.drafted, None
        if past is None:
            return
        became = zip(
            past.indexes.tolist(), past.drafted.tolist(), past.accepted.tolist(), strict=True
        )
        for index, drafted, accepted in became:
            if index in class_of:
                self.drafts.observe(class_of[index], int(drafted), int(accepted))

    def _allowed(self, names: Sequence[str]) -> list[float]:
        return [float(self.policy.drafts_of(name) or 0) for name in names]
