"""The common parts of baselines: a router, a step former, and drafts of a fixed length."""

import math
from collections.abc import Callable, Mapping, Sequence

from services.evaluation.baselines.room import set_drafts
from services.evaluation.baselines.routers import Router
from shared.batch_time.table import FloatArray
from shared.scheduling.rows import Rows
from shared.scheduling.shares import MAX_TOKENS, Tokens
from shared.simulation.engine import SimEngine
from shared.simulation.system import Ended, Fetched, Refusal, Route, SimRequest

StepFormer = Callable[[Rows, Tokens, FloatArray, FloatArray, FloatArray, float], float]


class Baseline:
    """A `System` that promises everything and defers nothing.

    `form_step` has the arguments of `shared.scheduling.kernel.form`. Its steps have at most
    `budget_tokens`, by the name of an engine, within the engine's own limit. An engine with more
    than `drafting_requests` does not draft.
    """

    recheck_s = 0.1

    def __init__(
        self,
        router: Router,
        form_step: StepFormer,
        *,
        drafts: int = 0,
        drafting_requests: int | None = None,
        budget_tokens: Mapping[str, int] | None = None,
    ) -> None:
        self._router, self._form_step, self._drafts = router, form_step, float(drafts)
        self._drafting_requests = math.inf if drafting_requests is None else drafting_requests
        self._budget_tokens = budget_tokens or {}
        self._engines: Mapping[str, SimEngine] = {}

    def observe(self, engines: Mapping[str, SimEngine], now: float) -> None:  # noqa: ARG002 - a System
        """Stores the engines as they are."""
        self._engines = engines

    def place(self, waiting: Sequence[SimRequest], now: float) -> list[Route | Refusal | None]:
        """Routes requests at once, in order of arrival."""
        return [self._router.route(request, self._engines, now) for request in waiting]

    def form(self, engine: SimEngine, tokens: Tokens, counts: FloatArray, now: float) -> float:
        """Sets drafts, then forms the step."""
        most = engine.hardware.max_step_tokens
        engine.limits[MAX_TOKENS] = min(most, self._budget_tokens.get(engine.name, most))
        drafting = len(engine.rows) <= self._drafting_requests
        set_drafts(engine.rows, self._drafts if drafting else 0.0)
        limits, table = engine.limits, engine.table.numbers
        return float(self._form_step(engine.rows, tokens, counts, table, limits, now))

    def moved(self, engine: SimEngine, request: SimRequest) -> None:
        """Nothing to do: the router counts the request until its end."""

    def fetched(self, engine: SimEngine, fetched: Fetched) -> None:
        """Nothing to do: the router does not count transfers."""

    def exported(self, request: SimRequest, seconds: float, now: float, *, in_time: bool) -> None:
        """Nothing to do: the router has no prefix pulled."""

    def ended(self, ended: Ended) -> None:
        """Lets the router forget the request."""
        self._router.ended(ended.request.index)

    def lost(self, engine: SimEngine, now: float) -> None:
        """Nothing to do: its requests are placed anew, which the router notices by itself."""

    def joined(self, engine: SimEngine, now: float) -> None:
        """Nothing to do: the router uses it from the next request on."""
