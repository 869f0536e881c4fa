"""Requests placed on one engine: those on the way, and those that its reports show."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from shared.batch_time.table import FloatArray
from shared.scheduling.rows import EXPIRED, KEY, KIND, PROMISED, Rows, empty

SEEN_LIMIT_S, UNSEEN_LIMIT_S = 3600.0, 120.0
HOLDS_LIMIT = 8192


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reservation:
    """What one placed request takes of one engine. `due_at_s` is when it reaches the engine.

    `kv_tokens` is a 90 % bound of prompt and answer, by class. `ends_at_s` is the predicted end,
    None when unknown. `row` is the request as the engine will see it, on the planner's clock.
    `adapter` is the number of its LoRA adapter, 0 without one.
    """

    decision_id: str
    request_id: str
    prefill_tokens: int
    kv_tokens: int
    class_name: str
    due_at_s: float
    ends_at_s: float | None = None
    row: FloatArray = field(default_factory=lambda: empty(1)[0])
    adapter: int = 0

    @property
    def key(self) -> float:
        return float(self.row[KEY])


@dataclass(slots=True, eq=False)
class Reservations:
    """The requests placed on one engine. Its reports include `seen` ones; `unseen` ones are on the
    way. `rows` are the requests of its last report.
    """

    rows: Rows = field(default_factory=lambda: empty(0))
    seen: dict[str, Reservation] = field(default_factory=dict)
    unseen: dict[str, Reservation] = field(default_factory=dict)
    unseen_prefill_tokens: int = 0
    unseen_kv_tokens: int = 0

    def classes(self, rows: Rows) -> list[str | None]:
        """The class of each row; None where unknown."""
        holds = (*self.seen.values(), *self.unseen.values())
        known = {hold.key: hold.class_name for hold in holds}
        return [known.get(key) for key in rows[:, KEY].tolist()]

    def decision_of(self, request_id: str) -> str:
        """The id of the decision that placed this request here; empty where unknown."""
        holds = (*self.unseen.values(), *self.seen.values())
        return next((one.decision_id for one in holds if one.request_id == request_id), "")

    def hold(self, hold: Reservation) -> None:
        if len(self.seen) + len(self.unseen) >= HOLDS_LIMIT:
            self.release(next(iter(self.seen or self.unseen)))
        self.release(hold.decision_id)
        self.unseen[hold.decision_id] = hold
        self.unseen_prefill_tokens += hold.prefill_tokens
        self.unseen_kv_tokens += hold.kv_tokens

    def release(self, decision_id: str) -> None:
        """Removes a request that has left or will never come; ignores unknown decisions."""
        hold = self.seen.pop(decision_id, None)
        if hold is not None:
            self.rows = self.rows[self.rows[:, KEY] != hold.key]
        self._pop_unseen(decision_id)

    @property
    def lost_keys(self) -> frozenset[float]:
        """The keys of requests here that will get their first token late."""
        return frozenset(self.rows[self.rows[:, KIND] == EXPIRED, KEY].tolist())

    def give_up(self, keys: Collection[float]) -> None:
        """Drops the promise of unseen requests with these keys."""
        for hold in self.unseen.values():
            if hold.key in keys and hold.row[KIND] == PROMISED:
                hold.row[KIND] = EXPIRED

    def forget_old_holds(self, now: float) -> None:
        """Releases requests of gateways that vanished, after a limit of seconds."""
        for held, limit_s in ((self.seen, SEEN_LIMIT_S), (self.unseen, UNSEEN_LIMIT_S)):
            for hold in [hold for hold in held.values() if now - hold.due_at_s > limit_s]:
                self.release(hold.decision_id)

    def _see_rows(self) -> None:
        """Marks the unseen requests that have a row as seen."""
        if not self.unseen:
            return
        there = set(self.rows[:, KEY].tolist())
        for hold in [hold for hold in self.unseen.values() if hold.key in there]:
            self._pop_unseen(hold.decision_id)
            self.seen[hold.decision_id] = hold

    def _see(self, before_s: float) -> None:
        """Marks unseen requests that were due by `before_s` as seen, for reports without rows."""
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
