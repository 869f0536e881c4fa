"""Requests that were placed on one engine: those on the way, and those that its reports show."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from shared.batch_time.table import Numbers
from shared.scheduling.rows import KEY, KIND, LOST, PROMISED, Rows, empty

SEEN_LIMIT_S, UNSEEN_LIMIT_S = 3600.0, 120.0
HOLDS_LIMIT = 8192


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hold:
    """What one placed request takes of one engine. `due_at_s` is when it reaches the engine.

    `kv_tokens` is what nine in ten of its class will not exceed, `ends_at_s` when it is predicted
    to leave, None when unknown. `row` is the request as the engine will see it, on the planner's
    clock.
    """

    decision_id: str
    request_id: str
    prefill_tokens: int
    kv_tokens: int
    class_name: str
    due_at_s: float
    ends_at_s: float | None = None
    row: Numbers = field(default_factory=lambda: empty(1)[0])

    @property
    def key(self) -> float:
        return float(self.row[KEY])


@dataclass(slots=True, eq=False)
class Holds:
    """Unseen holds are those that the engine's reports cannot show yet; seen ones are in its
    counts. `rows` are the requests of its last report.
    """

    rows: Rows = field(default_factory=lambda: empty(0))
    seen: dict[str, Hold] = field(default_factory=dict)
    unseen: dict[str, Hold] = field(default_factory=dict)
    unseen_prefill_tokens: int = 0
    unseen_kv_tokens: int = 0

    def classes(self, rows: Rows) -> list[str | None]:
        """Of these requests; None where nobody knows."""
        holds = (*self.seen.values(), *self.unseen.values())
        known = {hold.key: hold.class_name for hold in holds}
        return [known.get(key) for key in rows[:, KEY].tolist()]

    def decision_of(self, request_id: str) -> str:
        """The decision that placed this request here; empty where none is known."""
        holds = (*self.unseen.values(), *self.seen.values())
        return next((one.decision_id for one in holds if one.request_id == request_id), "")

    def hold(self, hold: Hold) -> None:
        if len(self.seen) + len(self.unseen) >= HOLDS_LIMIT:
            self.release(next(iter(self.seen or self.unseen)))
        self.release(hold.decision_id)
        self.unseen[hold.decision_id] = hold
        self.unseen_prefill_tokens += hold.prefill_tokens
        self.unseen_kv_tokens += hold.kv_tokens

    def release(self, decision_id: str) -> None:
        """The request has left or will never come; unknown ones are no matter."""
        hold = self.seen.pop(decision_id, None)
        if hold is not None:
            self.rows = self.rows[self.rows[:, KEY] != hold.key]
        self._pop_unseen(decision_id)

    @property
    def lost_keys(self) -> frozenset[float]:
        """Of requests here whose first token cannot be on time any more."""
        return frozenset(self.rows[self.rows[:, KIND] == LOST, KEY].tolist())

    def give_up(self, keys: Collection[float]) -> None:
        """What is on the way here of these is not promised any more."""
        for hold in self.unseen.values():
            if hold.key in keys and hold.row[KIND] == PROMISED:
                hold.row[KIND] = LOST

    def forget_old_holds(self, now: float) -> None:
        """Of requests whose gateway vanished with them."""
        for held, limit_s in ((self.seen, SEEN_LIMIT_S), (self.unseen, UNSEEN_LIMIT_S)):
            for hold in [hold for hold in held.values() if now - hold.due_at_s > limit_s]:
                self.release(hold.decision_id)

    def _see_rows(self) -> None:
        """Whoever has a row has arrived."""
        if not self.unseen:
            return
        there = set(self.rows[:, KEY].tolist())
        for hold in [hold for hold in self.unseen.values() if hold.key in there]:
            self._pop_unseen(hold.decision_id)
            self.seen[hold.decision_id] = hold

    def _see(self, before_s: float) -> None:
        """An engine that tells nothing of its requests has those that were due a while ago."""
        for hold in [hold for hold in self.unseen.values() if hold.due_at_s <= before_s]:
            self._pop_unseen(hold.decision_id)
            self.seen[hold.decision_id] = hold

    def _release_requests(self, request_ids: Iterable[str]) -> None:
        gone = set(request_ids)
        if not gone:
            return
        for held in (self.seen, self.unseen):
            for hold in [hold for hold in held.values() if hold.request_id in gone]:
                self.release(hold.decision_id)

    def _pop_unseen(self, decision_id: str) -> None:
        hold = self.unseen.pop(decision_id, None)
        if hold:
            self.unseen_prefill_tokens -= hold.prefill_tokens
            self.unseen_kv_tokens -= hold.kv_tokens
