"""What a serving system is to the simulation: who places requests, and who forms steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.batch_time.table import Numbers
from shared.requests import Admission
from shared.scheduling.rows import PLAIN
from shared.scheduling.shares import Tokens
from shared.simulation.engine import SimEngine
from shared.workloads.calls import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A request that waits to be placed. `life` is its row in the run's lives.

    `ttft_s` is its target in seconds, infinite where none was asked; `in_session`: its program has
    several calls. `produced` tokens were given on an engine that is gone.
    """

    life: int
    call: Call
    program_id: str
    round: int
    arrives_s: float
    ttft_s: float
    in_session: bool = False
    produced: int = 0

    @property
    def name(self) -> str:
        return f"{self.program_id}.{self.round}"

    @property
    def prompt_tokens(self) -> int:
        """What has to be computed before it gives its next token."""
        return self.call.prompt_tokens + self.produced


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a request runs. `prefill` None: its prompt is computed where it decodes.

    `kind` is that of its row (`shared.scheduling.rows`), `key` the number it is known by. Engines
    hold `pace_share` of each pace, tokens after the first are due `grace_s` later, the first one
    `delivery_s` earlier. `by_deadlines`: those after it are due by when it was due.
    """

    decode: str
    prefill: str | None = None
    kind: float = PLAIN
    admission: Admission = Admission.ADMITTED
    key: int = 0
    grace_s: float = 0.0
    pace_share: float = 1.0
    delivery_s: float = 0.0
    by_deadlines: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class No:
    """Refused; it will not run. `retry_after_s`: when another try may succeed, in seconds from the
    answer; None: the answer names no time.
    """

    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A request that ended on an engine. All times are those of the gateway.

    Attributes:
        placed_s: When the gateway had its (last) placement.
        started_s: When the first step began that held some of it.
        first_s: When its first token came.
        last_s: When its last token came.
        moved_s: From its first token to the first one of another engine, None where there was but
            one.
        recomputed: Its KV did not arrive at the other engine.
        stage_lateness: As in `shared.requests.Outcome`.
    """

    ticket: Ticket
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

    ticket: Ticket
    source: str
    tokens: int
    seconds: float
    used: bool


class System(Protocol):
    """One serving system over one fleet. `place` gives an answer for each that waits, None: hold
    it; while somebody is held it is asked again after `recheck_s` and whenever a request has left
    an engine.
    """

    @property
    def recheck_s(self) -> float: ...

    def hear(self, engines: Mapping[str, SimEngine], now: float) -> None:
        """Takes in how its engines stand, before each `place`."""

    def place(self, waiting: Sequence[Ticket], now: float) -> Sequence[Route | No | None]:
        """Where each goes."""

    def form(self, engine: SimEngine, tokens: Tokens, counts: Numbers, now: float) -> float:
        """Fills `tokens`, one for each row of the engine, and `counts`, as
        `shared.scheduling.kernel.form` does; 0 where there is nothing to do.
        """

    def moved(self, engine: SimEngine, ticket: Ticket) -> None:
        """A prompt is computed; its request leaves this engine to go on where it decodes."""

    def fetched(self, engine: SimEngine, fetched: Fetched) -> None:
        """KV that this engine was to fetch is there, or will not come."""

    def ended(self, ended: Ended) -> None:
        """A request has all its tokens."""

    def lost(self, engine: SimEngine, now: float) -> None:
        """The engine died with all that it held."""

    def joined(self, engine: SimEngine) -> None:
        """The engine came (back)."""
