"""Wraps a system to count its steps and time its decisions."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from shared.batch_time.table import DECODES, PREFILL, SPECULATED, FloatArray
from shared.scheduling.shares import Tokens
from shared.simulation.engine import SimEngine
from shared.simulation.system import Ended, Fetched, Refusal, Route, SimRequest, System

BATCH_EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Observed:
    """Forwards every call to the system. `clock` gives CPU seconds."""

    def __init__(self, system: System, clock: Callable[[], float]) -> None:
        self._system, self._clock = system, clock
        self._step_tokens: list[float] = []
        self._decisions_s: list[float] = []
        self._decided = 0

    @property
    def recheck_s(self) -> float:
        return self._system.recheck_s

    def observe(self, engines: Mapping[str, SimEngine], now: float) -> None:
        self._system.observe(engines, now)

    def place(self, waiting: Sequence[SimRequest], now: float) -> Sequence[Route | Refusal | None]:
        started_s = self._clock()
        answers = self._system.place(waiting, now)
        self._decisions_s.append(self._clock() - started_s)
        self._decided += sum(answer is not None for answer in answers)
        return answers

    def form(self, engine: SimEngine, tokens: Tokens, counts: FloatArray, now: float) -> float:
        formed = self._system.form(engine, tokens, counts, now)
        if formed:
            self._step_tokens.append(counts[DECODES] + counts[PREFILL] + counts[SPECULATED])
        return formed

    def moved(self, engine: SimEngine, request: SimRequest) -> None:
        self._system.moved(engine, request)

    def fetched(self, engine: SimEngine, fetched: Fetched) -> None:
        self._system.fetched(engine, fetched)

    def exported(self, request: SimRequest, seconds: float, now: float, *, in_time: bool) -> None:
        self._system.exported(request, seconds, now, in_time=in_time)

    def ended(self, ended: Ended) -> None:
        self._system.ended(ended)

    def lost(self, engine: SimEngine, now: float) -> None:
        self._system.lost(engine, now)

    def joined(self, engine: SimEngine, now: float) -> None:
        self._system.joined(engine, now)

    @property
    def batches(self) -> tuple[int, ...]:
        """The number of steps by their tokens, in the bins of BATCH_EDGES."""
        counted, _ = np.histogram(self._step_tokens, bins=[*BATCH_EDGES, np.inf])
        return tuple(counted.tolist())

    @property
    def decision_ms(self) -> tuple[float, float, float]:
        """p50 and p99 of the rounds of decisions, and the mean per decided request."""
        if not self._decisions_s:
            return 0.0, 0.0, 0.0
        p50, p99 = np.quantile(self._decisions_s, (0.5, 0.99)).tolist()
        mean = sum(self._decisions_s) / max(1, self._decided)
        return p50 * 1e3, p99 * 1e3, mean * 1e3
