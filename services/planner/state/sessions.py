"""Sessions (a chat, a tool loop): passes targets on from call to call."""

from collections import OrderedDict
from dataclasses import dataclass, replace

from services.planner.state.idle_sessions import IdleSessions
from shared.bounded import remember
from shared.requests import Outcome, Placement, PlacementQuery, SloTargets


@dataclass(slots=True, kw_only=True)
class _Session:
    used_at_s: float
    targets: SloTargets | None = None
    home: str = ""  # the engine with the KV of the last call, which rests there


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunningCall:
    """One placed request of a session, until it ends."""

    session_key: str
    engine: str
    class_name: str
    prompt_tokens: int


class Sessions:
    """The latest `limit` sessions, each of one tenant; forgets those unused for `limit_s`."""

    def __init__(self, *, limit: int = 16_384, limit_s: float = 1800.0) -> None:
        self._limit = limit
        self._limit_s = limit_s
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._running: OrderedDict[str, _RunningCall] = OrderedDict()  # by decision id
        self.idle = IdleSessions()

    def enrich(self, query: PlacementQuery, now: float) -> PlacementQuery:
        """Returns the query with the targets of the session's last call that had any, where it has
        none. Unchanged without a session.

        Takes the gateway's query, not one that was enriched before.
        """
        if query.session_key is None:
            return query
        session = self._known(query.session_key, now) or _Session(used_at_s=now)
        remember(self._sessions, query.session_key, session, self._limit)
        own = query.targets
        if not own.asks_for_nothing:
            session.targets = own
        said = session.targets or own
        return replace(query, targets=replace(said, on_refuse=own.on_refuse, value=own.value))

    def placed(self, query: PlacementQuery, placement: Placement, now: float) -> None:
        """Begins a call with an enriched query, if its request runs."""
        session = self._known(query.session_key, now)
        if session is None or query.session_key is None or placement.decode is None:
            return
        session.used_at_s = now
        self.idle.end(query.session_key, session.home, now)
        begun = _RunningCall(
            session_key=query.session_key,
            engine=placement.decode.name,
            class_name=query.targets.class_name,
            prompt_tokens=query.prompt_tokens,
        )
        remember(self._running, placement.decision_id, begun, self._limit)

    def ended(self, outcome: Outcome, now: float) -> None:
        """Ends a call; ignores unknown decisions.

        The KV of an answer's last token is never computed.
        """
        over = self._running.pop(outcome.decision_id, None)
        session = self._sessions.get(over.session_key) if over else None
        if over is None or session is None or outcome.ttft_s is None:
            return
        if outcome.finished in ("error", "moved"):
            return
        session.home = over.engine
        self.idle.begin(
            over.session_key,
            over.engine,
            class_name=over.class_name,
            tokens=over.prompt_tokens + max(0, outcome.output_tokens - 1),
            now=now,
        )

    def lost(self, engine: str) -> None:
        """Forgets the KV on an engine that is gone."""
        self.idle.lost(engine)
        for session in self._sessions.values():
            if session.home == engine:
                session.home = ""

    def _known(self, session_key: str | None, now: float) -> _Session | None:
        session = self._sessions.get(session_key or "")
        return session if session and now - session.used_at_s <= self._limit_s else None
