"""The planner's Prometheus metrics, and the HTTP port that serves them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    start_http_server,
)

from services.planner.scaling.fleet_size import FleetSize
from services.planner.state.cluster import ClusterState
from services.planner.state.engine_state import EngineState, engines_by_role
from shared.engines import Role, StepReport
from shared.errors import ConfigError
from shared.requests import Admission, Outcome, Placement, PrefixExport

_DECISION_SECONDS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05)

_WAIT_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SCALING_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class PlannerMetrics:
    """One registry per planner, so that two in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._named: set[str] = set()  # engines that have a gauge
        self._decisions = self._counter(
            "slos_planner_decisions_total", "Decisions made.", "admission", "way", "reason"
        )
        self._pulls = self._counter(
            "slos_planner_prefix_pulls_total",
            "Placements that pull a cached prefix, by the engine that has it.",
            "source",
        )
        self._pulled_tokens = self._counter(
            "slos_planner_prefix_pulled_tokens_total",
            "Prompt tokens of these placements that are pulled.",
            "source",
        )
        self._exports = self._counter(
            "slos_planner_prefix_exports_total",
            "Prefixes that were to be pulled, by whether the source exported them in time.",
            "exported",
        )
        self._decision_seconds = Histogram(
            "slos_planner_decision_seconds",
            "Seconds that one round of decisions took.",
            buckets=_DECISION_SECONDS,
            registry=self.registry,
        )
        self._wait_seconds = Histogram(
            "slos_planner_wait_seconds",
            "Seconds that requests were held until their decision.",
            buckets=_WAIT_SECONDS,
            registry=self.registry,
        )
        self._waiting = self._gauge(
            "slos_planner_waiting_requests", "Requests held until their decision."
        )
        self._engines = self._gauge("slos_planner_engines", "Engines attached.", "role")
        self._draining = self._gauge("slos_planner_draining_engines", "Engines draining.")
        self._stalled = self._gauge(
            "slos_planner_stalled_engines", "Engines that give no sign of progress."
        )
        self._in_flight = self._gauge(
            "slos_planner_held_requests", "Requests placed on an engine and not ended.", "engine"
        )
        self._cached_tokens = self._gauge(
            "slos_planner_cached_tokens",
            "Tokens of prompts in the prefix cache of an engine, as the planner knows.",
            "engine",
        )
        self._desired = self._gauge(
            "slos_planner_desired_engines",
            "Engines with which the requests of the last window would have kept their targets.",
            "role",
        )
        self._scaling_seconds = Histogram(
            "slos_planner_scaling_seconds",
            "Seconds that computing the desired engines took, beside rounds of decisions.",
            buckets=_SCALING_SECONDS,
            registry=self.registry,
        )
        self._registrations = self._counter(
            "slos_planner_registrations_total", "Registrations of engines.", "verdict"
        )
        self._reports = self._counter(
            "slos_planner_step_reports_total", "Step reports received.", "engine"
        )
        self._outcomes = self._counter(
            "slos_planner_outcomes_total", "Placed requests that ended.", "finished", "recomputed"
        )

    def desires(self, size: FleetSize) -> None:
        self._desired.labels(Role.PREFILL).set(size.prefill)
        self._desired.labels(Role.DECODE).set(size.decode)

    def scaling_took(self, seconds: float) -> None:
        self._scaling_seconds.observe(seconds)

    def round_took(self, seconds: float) -> None:
        self._decision_seconds.observe(seconds)

    def decided(self, placement: Placement, waited_s: float) -> None:
        """Counts an answer; `waited_s` is the time since the request's first call."""
        self._decisions.labels(placement.admission, placement.way, placement.reason).inc()
        source = placement.prefix_source
        if source is not None:
            self._pulls.labels(source.engine.name).inc()
            self._pulled_tokens.labels(source.engine.name).inc(source.tokens)
        if placement.admission is not Admission.DEFERRED:
            self._wait_seconds.observe(waited_s)

    def counts_waiting(self, count: Callable[[], int]) -> None:
        """Sets the function that returns how many requests wait for their decision."""
        self._waiting.set_function(count)

    def registered(self, accepted: bool) -> None:
        self._registrations.labels("accepted" if accepted else "refused").inc()

    def reported(self, engine: EngineState, reports: Sequence[StepReport]) -> None:
        self._reports.labels(engine.name).inc(len(reports))

    def settled(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            finished = outcome.finished if outcome.finished in _ENDINGS else "other"
            self._outcomes.labels(finished, str(outcome.recomputed).lower()).inc()

    def exported(self, exports: Iterable[PrefixExport]) -> None:
        for export in exports:
            self._exports.labels(str(export.exported).lower()).inc()

    def shown(self, state: ClusterState) -> None:
        """Sets the gauges to the present state."""
        for role, count in engines_by_role(state.engines.values()).items():
            self._engines.labels(role).set(count)
        self._draining.set(sum(engine.draining for engine in state.engines.values()))
        self._stalled.set(sum(engine.stalled for engine in state.engines.values()))
        for name in self._named - state.engines.keys():
            self._in_flight.remove(name)
            self._cached_tokens.remove(name)
        self._named = set(state.engines)
        for engine in state.engines.values():
            self._in_flight.labels(engine.name).set(len(engine.seen) + len(engine.unseen))
            self._cached_tokens.labels(engine.name).set(state.prefixes.tokens(engine.name))

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(name, documentation, labels, registry=self.registry)


_ENDINGS = frozenset({"stop", "length", "abort", "error", "moved"})


@contextmanager
def serve_metrics(metrics: PlannerMetrics, host: str, port: int) -> Iterator[int]:
    """Serves `/metrics` on a port and a thread of its own within the context; yields the port."""
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} for metrics ({error.strerror}): "
            "end what holds the port, or choose another with --metrics-port"
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
