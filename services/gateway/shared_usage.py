"""Memory of tenants' usage that the worker processes of a gateway share, and its lock."""

import fcntl
import mmap
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from services.gateway.usage import UsageBook, size_bytes

_LOCK_TRIES, _LOCK_PAUSE_S = 500, 1e-4


@contextmanager
def shared_usage(tenants: int, workers: int) -> Iterator[UsageBook]:
    """A book that processes forked from this one use together, with room for so many tenants."""
    with tempfile.TemporaryFile(prefix="slos-gateway-usage-") as file:
        file.truncate(size_bytes(tenants, workers))
        memory = memoryview(mmap.mmap(file.fileno(), 0))
        yield UsageBook(memory, workers, lambda: _locked(file))


@contextmanager
def _locked(file: IO[bytes]) -> Iterator[None]:
    """Keeps other processes out. One that stands still with the lock stops nobody for longer than
    50 ms: then a count may be lost. The lock of one that dies is free at once.
    """
    took = any(_try_lock(file) for _ in range(_LOCK_TRIES))
    try:
        yield
    finally:
        if took:
            fcntl.lockf(file, fcntl.LOCK_UN)


def _try_lock(file: IO[bytes]) -> bool:
    with suppress(OSError):
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    time.sleep(_LOCK_PAUSE_S)
    return False
