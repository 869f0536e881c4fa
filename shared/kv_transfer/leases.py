"""Leases: KV blocks that this engine holds for readers, by request.

The engine core asks `take_ended` before it frees blocks, and the KV port answers confirmations
from another thread. One lock orders the two: an answer "held" is given before the blocks are free.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class LeaseEnd(StrEnum):
    """Why a lease ended."""

    READ = "read"
    RELEASED = "released"
    EXPIRED = "expired"


@dataclass(slots=True)
class _Lease:
    """`expires_at_s` is None while the prompt is being computed: its blocks must not be freed."""

    expires_at_s: float | None = None
    confirmations: int = 0
    ended_by: LeaseEnd | None = None


@dataclass(slots=True)
class LeaseTable:
    """Leases by request id. A renewal lasts `extension_s`. Thread-safe."""

    extension_s: float
    _leases: dict[str, _Lease] = field(default_factory=dict)
    _ended: list[tuple[str, LeaseEnd]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def expect(self, request_ids: Iterable[str]) -> None:
        """Holds the blocks of these requests, which compute a prompt for a reader, from now on."""
        with self._lock:
            for request_id in request_ids:
                self._leases.setdefault(request_id, _Lease())

    def forget(self, request_ids: Iterable[str]) -> None:
        """Drops requests that ended without a prompt to hand over; their blocks are free."""
        with self._lock:
            for request_id in request_ids:
                self._leases.pop(request_id, None)

    def grant(self, request_id: str, *, expires_at_s: float) -> None:
        """Starts the lease of a computed prompt; it ends at once if it was read or released."""
        with self._lock:
            lease = self._leases.get(request_id)
            if lease is None:
                return
            lease.expires_at_s = expires_at_s
            if lease.ended_by is not None:
                self._end(request_id, lease.ended_by)

    def renew(self, request_ids: Iterable[str], now: float) -> None:
        """Extends the leases of blocks that a reader still needs."""
        with self._lock:
            for request_id in request_ids:
                lease = self._leases.get(request_id)
                if lease is not None and lease.expires_at_s is not None:
                    lease.expires_at_s = max(lease.expires_at_s, now + self.extension_s)

    def is_held(self, request_id: str) -> bool:
        with self._lock:
            return self._is_held(request_id)

    def confirm(self, request_id: str, *, readers: int) -> bool:
        """Whether the blocks were held until now.

        The last of `readers` confirmations ends the lease.
        """
        with self._lock:
            if not self._is_held(request_id):
                return False
            lease = self._leases[request_id]
            lease.confirmations += 1
            if lease.confirmations >= readers:
                self._end_or_mark(request_id, lease, LeaseEnd.READ)
            return True

    def release(self, request_ids: Iterable[str]) -> None:
        """Ends the leases of blocks that no reader needs any more."""
        with self._lock:
            for request_id in request_ids:
                if self._is_held(request_id):
                    self._end_or_mark(request_id, self._leases[request_id], LeaseEnd.RELEASED)

    def take_ended(self, now: float) -> list[tuple[str, LeaseEnd]]:
        """Leases that ended since the last call, those that expired by `now` among them.

        No confirmation of them succeeds after this call, so their blocks may be freed.
        """
        with self._lock:
            expired = [
                request_id
                for request_id, lease in self._leases.items()
                if lease.expires_at_s is not None and now >= lease.expires_at_s
            ]
            for request_id in expired:
                self._end(request_id, LeaseEnd.EXPIRED)
            ended, self._ended = self._ended, []
            return ended

    def __len__(self) -> int:
        return len(self._leases)

    def _is_held(self, request_id: str) -> bool:
        lease = self._leases.get(request_id)
        return lease is not None and lease.ended_by is None

    def _end_or_mark(self, request_id: str, lease: _Lease, why: LeaseEnd) -> None:
        lease.ended_by = why
        if lease.expires_at_s is not None:
            self._end(request_id, why)

    def _end(self, request_id: str, why: LeaseEnd) -> None:
        del self._leases[request_id]
        self._ended.append((request_id, why))
