"""The interface of a serving system to the simulation: it places requests and forms steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.batch_time.table import FloatArray
from shared.requests import Admission
from shared.scheduling.rows import NO_SLO
from shared.scheduling.shares import Tokens
from shared.simulation.engine import SimEngine
from shared.workloads.calls import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class SimRequest:
    """A request of a simulated run, as its serving system knows it.

    Attributes:
        index: That of its row in the run's metrics.
        ttft_s: Its target; infinite without one.
        in_session: Its program has several calls.
        produced: Tokens from an engine that is gone.
    """

    index: int
    call: Call
    program_id: str
    call_number: int
    arrives_s: float
    ttft_s: float
    in_session: bool = False
    produced: int = 0

    @property
    def name(self) -> str:
        return f"{self.program_id}.{self.call_number}"

    @property
    def prompt_tokens(self) -> int:
        """Tokens to compute before its next token."""
        return self.call.prompt_tokens + self.produced


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where and how a request runs.

    Attributes:
        prefill: None if its prompt runs on the decode engine.
        kind: The kind of its row (`shared.scheduling.rows`).
        key: Its number in the rows.
        grace_s: Decode slack: tokens after the first are due this much later.
        pace_share: Share of each TPOT target that engines schedule for.
        delivery_s: The first token is due this much earlier.
        by_deadlines: Deadline pacing: later tokens count from the first one's due time.
        source: The engine whose cached prefix is pulled, if any.
        pulled_tokens: At most so many tokens are pulled.
        export_limit_s: The longest time that the source may take to export them.
    """

    decode: str
    prefill: str | None = None
    kind: float = NO_SLO
    admission: Admission = Admission.ADMITTED
    key: int = 0
    grace_s: float = 0.0
    pace_share: float = 1.0
    delivery_s: float = 0.0
    by_deadlines: bool = False
    source: str | None = None
    pulled_tokens: int = 0
    export_limit_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal. `retry_after_s` is the wait that the answer names, None if it names none."""

    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A request that ended on an engine. All times are those of the gateway.

    Attributes:
        placed_s: When the gateway had its (last) placement.
        started_s: When the first step began that held some of it.
        first_s: When its first token came.
        last_s: When its last token came.
        moved_s: From its first token to the first one of another engine; None on one engine.
        recomputed: Its KV did not arrive at the other engine.
        stage_lateness: As in `shared.requests.Outcome`.
    """

    request: SimRequest
    tokens: int
    placed_s: float
    started_s: float
    first_s: float
    last_s: float
    moved_s: float | None
    recomputed: bool
    stage_lateness: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The KV of a prompt that an engine was to fetch from the engine `source`, `seconds` ago.
    `used` false: it will not come, for that engine is gone.
    """

    request: SimRequest
    source: str
    tokens: int
    seconds: float
    used: bool


class System(Protocol):
    """One serving system over one fleet.

    While requests are deferred, `place` is called again after `recheck_s` and whenever a request
    leaves an engine.
    """

    @property
    def recheck_s(self) -> float: ...

    def observe(self, engines: Mapping[str, SimEngine], now: float) -> None:
        """Observes the state of the engines, before each `place`."""

    def place(self, waiting: Sequence[SimRequest], now: float) -> Sequence[Route | Refusal | None]:
        """The decision on each waiting request; None defers it."""

    def form(self, engine: SimEngine, tokens: Tokens, counts: FloatArray, now: float) -> float:
        """Fills `tokens`, one for each row of the engine, and `counts`; 0 if there is no step.

        It has the contract of `shared.scheduling.kernel.form`.
        """

    def moved(self, engine: SimEngine, request: SimRequest) -> None:
        """Called when a request with a computed prompt leaves this engine for its decode engine, or
        this engine is done with an export.
        """

    def fetched(self, engine: SimEngine, fetched: Fetched) -> None:
        """KV that this engine was to fetch is there, or will not come."""

    def exported(self, request: SimRequest, seconds: float, now: float, *, in_time: bool) -> None:
        """The source of a request's prefix has exported it after `seconds`, or else failed or was
        given up then.
        """

    def ended(self, ended: Ended) -> None:
        """Called when a request has all its tokens."""

    def lost(self, engine: SimEngine, now: float) -> None:
        """Called when the engine died with all its requests."""

    def joined(self, engine: SimEngine, now: float) -> None:
        """Called when the engine joins the fleet, for the first time or again."""
