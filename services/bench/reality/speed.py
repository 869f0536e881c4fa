"""How fast this machine computes while something else is measured: a small work, the same each
time, on a thread of its own. Knows nothing of engines.

Machines that share their hardware with others change their speed by a tenth and more within a
minute. The work reads more than a cache holds and interprets some code, as a step of a small model
does, and counts in CPU time, in which waiting for a core is not.
"""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_NUMBERS = 25_000_000  # 100 MB
_TURNS = 100_000  # of interpreted code; the two together are about 10 ms of a core
_PAUSE_S = 0.25
_JOIN_S = 5.0


class Probe:
    """`work_s` is the median CPU time of the work so far. Raises ValueError before the first."""

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._over = threading.Event()

    @property
    def work_s(self) -> float:
        return statistics.median(self._times_s)

    def run(self) -> None:
        numbers = np.ones(_NUMBERS, dtype=np.float32)
        while not self._over.wait(_PAUSE_S):
            started_s = time.thread_time()
            numbers.sum()
            sum(range(_TURNS))
            self._times_s.append(time.thread_time() - started_s)

    def end(self) -> None:
        self._over.set()


@contextmanager
def probing() -> Iterator[Probe]:
    """Probes while the context lives."""
    probe = Probe()
    thread = threading.Thread(target=probe.run, name="speed", daemon=True)
    thread.start()
    try:
        yield probe
    finally:
        probe.end()
        thread.join(_JOIN_S)
