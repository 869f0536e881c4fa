"""Chooses the transport of a reader for each holder."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.bounded import remember
from shared.kv_transfer.settings import KvTransport
from shared.kv_transfer.tuning import NIXL_AGAIN_S

NIXL, ZMQ = "nixl", "zmq"
_MOST_PEERS = 4096


def usable(theirs: Sequence[str], ours: Sequence[str], *, same_workers: bool) -> tuple[str, ...]:
    """The transports of a holder, in its order, that can bring its blocks here.

    Over ZMQ worker n reads from worker n, so both engines must have as many of them; NIXL cuts
    blocks to the heads of each worker.
    """
    return tuple(one for one in theirs if one in ours and (same_workers or one != ZMQ))


def facing(rank: int, *, ours: int, theirs: int) -> list[int]:
    """The ranks of the holder's workers that our worker `rank` keeps in touch with.

    With as many workers on both sides, the one of the same rank. Otherwise all of ours together
    reach all of theirs.
    """
    mine = [one for one in range(theirs) if one * ours // theirs == rank]
    return mine or [rank * theirs // ours]


@dataclass(slots=True)
class Pairs:
    """Failures of NIXL between this engine and each holder, by engine id."""

    transport: KvTransport
    _nixl_failed_s: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def carrier(
        self, engine_id: str, theirs: Sequence[str], *, nixl_is_connected: bool, now: float
    ) -> str | None:
        """The transport of the next transfer; None where the two have none in common.

        With `auto`, ZMQ carries transfers before NIXL is connected, and for NIXL_AGAIN_S after a
        failure of NIXL.
        """
        common = [one for one in self.transport.carriers if one in theirs]
        if NIXL in common and ZMQ in common:
            ready = nixl_is_connected and self.nixl_may_be_tried(engine_id, now)
            return NIXL if ready else ZMQ
        return common[0] if common else None

    def nixl_may_be_tried(self, engine_id: str, now: float) -> bool:
        failed_s = self._nixl_failed_s.get(engine_id)
        return failed_s is None or now - failed_s >= NIXL_AGAIN_S

    def nixl_failed(self, engine_id: str, now: float) -> None:
        remember(self._nixl_failed_s, engine_id, now, _MOST_PEERS)
