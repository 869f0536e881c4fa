"""Sessions between two rounds, by the engine that has their KV cached."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from services.planner.tuning import FIRST_GAP_S, FRESH_GAP, GAPS_AWAITED, LONGEST_GAP_S
from shared.bounded import remember
from shared.engines import EngineDescription

_FORGOTTEN_S: Final = 600.0
_KEPT_CLASSES, _KEPT_SESSIONS = 256, 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rest:
    """A session between two rounds: since when, and the tokens of KV that it left."""

    class_name: str
    since_s: float
    tokens: int


class IdleSessions:
    """Sessions between rounds. Learns the mean gap of each class (EWMA) from those that came back.
    Bounded.
    """

    def __init__(self) -> None:
        self._gaps_s: OrderedDict[str, float] = OrderedDict()
        self._engines: dict[str, OrderedDict[str, _Rest]] = {}

    def begin(
        self, session_id: str, engine: str, *, class_name: str, tokens: int, now: float
    ) -> None:
        """Notes that a round ended on this engine and left so many tokens of KV there."""
        there = self._engines.setdefault(engine, OrderedDict())
        there.pop(session_id, None)
        there[session_id] = _Rest(class_name=class_name, since_s=now, tokens=tokens)
        while len(there) > _KEPT_SESSIONS or _first(there).since_s < now - _FORGOTTEN_S:
            there.popitem(last=False)

    def end(self, session_id: str, engine: str, now: float) -> None:
        """Notes that the next round came, and learns the gap."""
        rest = self._engines.get(engine, OrderedDict()).pop(session_id, None)
        if rest is None:
            return
        before_s = self._gaps_s.get(rest.class_name, FIRST_GAP_S)
        gap_s = before_s + FRESH_GAP * (now - rest.since_s - before_s)
        remember(self._gaps_s, rest.class_name, gap_s, _KEPT_CLASSES)

    def lost(self, engine: str) -> None:
        """Forgets the sessions on an engine that is gone."""
        self._engines.pop(engine, None)

    def blocks(self, engine: EngineDescription, now: float) -> int:
        """KV blocks of sessions that are expected back soon on this engine."""
        blocks = 0
        for rest in reversed(self._engines.get(engine.name, OrderedDict()).values()):
            rested_s = now - rest.since_s
            if rested_s > GAPS_AWAITED * LONGEST_GAP_S:
                break  # the others have rested for longer
            gap_s = self._gaps_s.get(rest.class_name, FIRST_GAP_S)
            if gap_s <= LONGEST_GAP_S and rested_s <= GAPS_AWAITED * gap_s:
                blocks += -(-rest.tokens // engine.block_size_tokens)
        return blocks


def _first(rests: OrderedDict[str, _Rest]) -> _Rest:
    return next(iter(rests.values()))
