"""What a run goes through beside its load, and what it leaves behind. Runs nothing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.simulation.engine import SimEngine
from shared.simulation.lives import Lives
from shared.simulation.system import Route, Ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """An engine dies at `from_s` and is back at `until_s`."""

    engine: str
    from_s: float
    until_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the run goes through beside its load. `network_s` is one way between any two parts,
    `decision_s` what a round of decisions takes; `drain_s` is how long after the last call came
    those that are still open are waited for. `fetched_at_steps`: an engine that runs a step takes
    notice of KV that it is to fetch when that is over, as vLLM does. `retry_s`: a client that is
    refused asks once more after so many seconds; 0: after those that the answer names; None: never.
    """

    network_s: float = 0.0005
    decision_s: float = 0.001
    drain_s: float = 120.0
    fetched_at_steps: bool = True
    outages: tuple[Outage, ...] = ()
    retry_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A request, by its row in the lives, that was refused at `refused_s` and asked for once more
    at `again_s`, both in seconds of the run.
    """

    life: int
    refused_s: float
    again_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """What a run left behind. `tickets` and `lives` go together: one for each call of the load that
    came, or that its program was never to come to. Of a request in `retries` they are those of the
    second try.
    """

    tickets: tuple[Ticket, ...]
    lives: Lives
    routes: dict[int, Route]
    engines: tuple[SimEngine, ...]
    ended_s: float
    retries: tuple[Retry, ...] = ()


# Looks on, now and then; True: what it wanted to know is known, and the run may end.
Watch = Callable[[Sequence[Ticket], Lives, float], bool]
