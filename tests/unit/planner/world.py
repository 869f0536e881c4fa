"""Simulated engines under the planner's own rounds, on virtual time, to compare promises with what
then happens.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from services.planner.admission.pending import Deferral, PendingRequest
from services.planner.admission.placement import Decision
from services.planner.admission.rounds import decide_round
from services.planner.estimators.client_latency import ClientLatency
from services.planner.planner_config import PlannerConfig
from services.planner.state.cluster import ClusterState
from services.planner.state.engine_state import EngineState
from shared.batch_time import RICH, Kind, StepCurve, StepTable
from shared.batch_time.table import COUNTS, expected_s
from shared.requests import Admission, OnRefuse, PlacementQuery, SloTargets
from shared.scheduling.expired import settle_expired
from shared.scheduling.kernel import form
from shared.scheduling.rows import KEY, Rows, empty, key_of, to_wire
from shared.scheduling.simulate import apply
from tests.unit.planner.builders import commit, make_engine, make_report

# About a 7B model on a card of 2023: 14 ms and 0.1 ms a token, attention beside.
CURVE = StepCurve(
    form=RICH,
    coefficients=(0.014, 4.8e-5, 0.005, 6e-5, 0, 7e-5, 1.7e-5, 0, 8e-8, 1e-9, 2e-8, 1e-10, 1e-9),
)
MARGIN = 1.1
TABLE = StepTable.of(CURVE, margins=dict.fromkeys(Kind, MARGIN))
CLASSES = {"summary": (3.0, 0.1), "code": (5.0, 0.05), "chat": (5.0, 0.1)}
_ASK_AGAIN_S = 0.02
_ROUNDING_S = 1e-5


@dataclass(slots=True, kw_only=True)
class Life:
    """One request: what it asked for and what it got."""

    query: PlacementQuery
    arrives_s: float
    output_tokens: int
    admission: Admission | None = None
    ttft_target_s: float = math.inf
    first_s: float = math.inf
    last_s: float = math.inf
    tokens: int = 0

    @property
    def kept(self) -> bool:
        pace_s = self.query.targets.tpot_s or math.inf
        later_s = self.last_s - self.first_s
        in_time = self.first_s - self.arrives_s <= self.ttft_target_s + _ROUNDING_S
        return self.tokens > 0 and in_time and later_s <= (self.tokens - 1) * pace_s + _ROUNDING_S


@dataclass(slots=True, eq=False)
class Engine:
    """Steps take what the table expects, times `noise`."""

    state: EngineState
    noise: random.Random | None
    rows: Rows = field(default_factory=lambda: empty(0))
    lives: list[Life] = field(default_factory=list)
    ends_s: float = math.inf
    _after: Rows = field(default_factory=lambda: empty(0))
    _seen: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))

    def take(self, life: Life, row: np.ndarray, now: float) -> None:
        self.rows = np.vstack([self.rows, row])
        self.lives.append(life)
        self._after = np.vstack([self._after, row])
        self._seen = np.vstack([self._seen, [math.inf, 0.0, 0.0, -math.inf]])
        if math.isinf(self.ends_s):
            self.begin(now)

    def begin(self, now: float) -> None:
        """Forms a step; it is reported as if it were over, as engines do."""
        self.ends_s = math.inf
        if not len(self.rows):
            return
        tokens, counts = np.zeros(len(self.rows), dtype=np.int64), np.zeros(COUNTS)
        settle_expired(self.rows, TABLE.numbers, now)
        if form(self.rows, tokens, counts, TABLE.numbers, self.state.limits, now) == 0:
            return
        self.ends_s = now + expected_s(TABLE.numbers, counts) * self._factor()
        self._after, self._seen = self.rows.copy(), np.zeros((len(self.rows), 4))
        apply(self._after, self._seen, tokens, self.ends_s, 0.0)

    def end(self) -> tuple[str, ...]:
        """Ends the step; returns the requests that have all their tokens."""
        self.rows = self._after
        for life, seen in zip(self.lives, self._seen, strict=True):
            if seen[2] > 0:
                life.first_s = min(life.first_s, seen[0])
                life.last_s = seen[1]
                life.tokens += int(seen[2])
        stays = np.array([life.tokens < life.output_tokens for life in self.lives], dtype=bool)
        gone = tuple(
            life.query.request_id
            for life, keeps in zip(self.lives, stays, strict=True)
            if not keeps
        )
        self.lives = [life for life, keeps in zip(self.lives, stays, strict=True) if keeps]
        self.rows = self.rows[stays]
        self._after, self._seen = self.rows.copy(), np.zeros((len(self.rows), 4))
        return gone

    def tell(self, state: ClusterState, now: float, gone: tuple[str, ...] = ()) -> None:
        busy_s = 0.0 if math.isinf(self.ends_s) else max(0.0, self.ends_s - now)
        report = make_report(
            running=len(self.rows),
            requests=to_wire(self._after, now) if len(self.rows) else b"",
            busy_s=busy_s,
            finished=gone,
            free_kv_blocks=self.state.description.kv_blocks,
        )
        state.observe(self.state, [report], now)

    def _factor(self) -> float:
        """At most the margin for 99 steps of 100."""
        if self.noise is None:
            return 1.0
        return 1.0 + (MARGIN - 1.0) * self.noise.gauss(0.0, 1.0) / 2.33


@dataclass(slots=True, eq=False)
class World:
    state: ClusterState
    engines: list[Engine]
    now: float = 0.0
    held: dict[str, Deferral] = field(default_factory=dict)

    @classmethod
    def of(cls, engines: int, noise: random.Random | None = None) -> "World":
        state = ClusterState(PlannerConfig(), epoch="e", now=0.0)
        state.client_latency = ClientLatency(
            _there_s=0.0
        )  # here the next step holds what is placed
        made = []
        for number in range(engines):
            description = make_engine(
                f"d{number}",
                max_running_requests=256,
                kv_blocks=8000,
                max_step_tokens=4096,
                max_model_len_tokens=8192,
                step_time=TABLE.to_bytes(),
                kv_address=None,
            )
            engine, _ = state.register(description)
            assert engine is not None
            made.append(Engine(engine, noise))
        return cls(state, made)

    def live_through(self, lives: Sequence[Life]) -> None:
        """Runs until all requests are served or refused."""
        coming = sorted(lives, key=lambda life: life.arrives_s)
        waiting: list[Life] = []
        while coming or waiting or any(engine.lives for engine in self.engines):
            self.now = self._next_s(coming, bool(waiting))
            ended = [engine for engine in self.engines if engine.ends_s <= self.now]
            for engine in ended:
                engine.tell(self.state, self.now, engine.end())
            while coming and coming[0].arrives_s <= self.now:
                waiting.append(coming.pop(0))
            waiting = self._decide(waiting)
            for engine in ended:
                engine.begin(self.now)
                engine.tell(self.state, self.now)

    def _next_s(self, coming: Sequence[Life], somebody_waits: bool) -> float:
        times_s = [engine.ends_s for engine in self.engines]
        if coming:
            times_s.append(coming[0].arrives_s)
        if somebody_waits:
            times_s.append(self.now + _ASK_AGAIN_S)
        return max(self.now, min(times_s))

    def _decide(self, waiting: list[Life]) -> list[Life]:
        asked = [
            replace(asked_of(life, self.now), deferral=self.held.get(life.query.request_id))
            for life in waiting
        ]
        still = []
        decisions = decide_round(asked, self.state, self.now)
        for life, one, decision in zip(waiting, asked, decisions, strict=True):
            if not isinstance(decision, Decision):
                if decision is not None:
                    self.held[one.query.request_id] = decision
                still.append(life)
                continue
            placement = commit(self.state, one.query, decision, self.now).placement
            life.admission, life.ttft_target_s = placement.admission, placement.ttft_s or math.inf
            if placement.decode is not None:
                engine = next(e for e in self.engines if e.state.name == placement.decode.name)
                hold = engine.state.unseen[placement.decision_id]
                assert hold.row[KEY] == key_of(placement.decision_id)
                engine.take(life, hold.row, self.now)
                engine.tell(self.state, self.now)
        return still


def asked_of(life: Life, now: float) -> PendingRequest:
    query = replace(life.query, waited_s=now - life.arrives_s)
    return PendingRequest(query=query, arrived_at_s=life.arrives_s, first_asked_at_s=life.arrives_s)


def lives_at(
    rate: float, requests: int, seed: int, *, on_refuse: OnRefuse = OnRefuse.REFUSE
) -> list[Life]:
    """Poisson arrivals of all classes, with answers of unknown length."""
    chance, now, lives = random.Random(seed), 0.0, []
    for number in range(requests):
        now += chance.expovariate(rate)
        name = chance.choice(list(CLASSES))
        slowdown, tpot_s = CLASSES[name]
        targets = SloTargets(
            class_name=name, ttft_slowdown=slowdown, tpot_s=tpot_s, on_refuse=on_refuse
        )
        query = PlacementQuery(
            request_id=f"r{number}",
            group_id=f"r{number}",
            model="m",
            prompt_tokens=10 + int(chance.lognormvariate(6, 1)) % 3500,
            max_output_tokens=chance.choice((200, 500)),
            targets=targets,
        )
        lives.append(Life(query=query, arrives_s=now, output_tokens=chance.randint(1, 200)))
    return lives
