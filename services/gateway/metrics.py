"""Prometheus metrics of the gateway, named `slos_*`. Label values come from closed sets only."""

from collections.abc import Collection
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from services.gateway.report import attained
from services.gateway.scope import RequestScope, SequenceRecord
from services.gateway.tenant_metrics import TenantMetrics
from shared.requests import Admission

# From 1 ms, in steps of about 2, to two minutes.
_BUCKETS_S: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
    *(0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0),
)
_OTHER: Final = "other"
_NONE: Final = "none"


class GatewayMetrics:
    """Counts requests by class; classes that are not configured count as `other`."""

    def __init__(self, classes: Collection[str], registry: CollectorRegistry = REGISTRY) -> None:
        self._classes = frozenset(classes)
        self._requests = Counter(
            "slos_requests_total",
            "Requests by class, admission and how they ended.",
            ("class", "admission", "outcome"),
            registry=registry,
        )
        self._attainment = Counter(
            "slos_attainment_total",
            "Requests with an SLO, by whether a promise was given and kept.",
            ("class", "met"),
            registry=registry,
        )
        self._refused = Counter(
            "slos_refused_total", "Refused requests.", ("class", "reason"), registry=registry
        )
        self._recomputes = Counter(
            "slos_kv_recomputes_total",
            "Sequences whose KV did not arrive, so that the prompt was computed again.",
            registry=registry,
        )
        self._moves = Counter(
            "slos_gateway_moves_total",
            "Moves of sequences to another engine, by cause.",
            ("cause",),
            registry=registry,
        )
        self._unmoved = Counter(
            "slos_gateway_unmoved_total",
            "Sequences that failed with their engine, by why they could not move.",
            ("why",),
            registry=registry,
        )
        self._of_tenants = TenantMetrics(registry)
        self._inflight = Gauge(
            "slos_inflight_requests",
            "Requests that this gateway serves now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        workers = Gauge(
            "slos_gateway_workers",
            "Processes of this gateway that serve.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        workers.set(1)
        self._ttft = self._histogram("slos_ttft_seconds", "Time to first token.", registry)
        self._tpot = self._histogram("slos_tpot_seconds", "Mean time per output token.", registry)
        self._placement = Histogram(
            "slos_gateway_placement_seconds",
            "From arrival to placement: rendering, tokenizing, the planner, deferral.",
            buckets=_BUCKETS_S,
            registry=registry,
        )

    @staticmethod
    def _histogram(name: str, text: str, registry: CollectorRegistry) -> Histogram:
        return Histogram(name, text, ("class", "way"), buckets=_BUCKETS_S, registry=registry)

    def started(self) -> None:
        self._inflight.inc()

    def ended(self, scope: RequestScope, outcome: str) -> None:
        """`outcome` is one of `ok`, `refused`, `failed`, `invalid`, `aborted`."""
        self._inflight.dec()
        name = self._class_label(scope)
        self._requests.labels(name, _admission(scope), outcome).inc()
        kept = attained(scope) if outcome in {"ok", "refused", "failed"} else None
        self._of_tenants.ended(scope, outcome, kept)
        if kept is not None:
            self._attainment.labels(name, str(kept).lower()).inc()
        for sequence in scope.sequences.values():
            self._observe(name, scope, sequence)

    def limited(self, tenant: str, limit: str) -> None:
        """A request was refused because its tenant is at this limit."""
        self._of_tenants.limited(tenant, limit)

    def _class_label(self, scope: RequestScope) -> str:
        name = scope.targets.class_name
        return name if name in self._classes else _OTHER

    def _observe(self, name: str, scope: RequestScope, sequence: SequenceRecord) -> None:
        placement = sequence.placement
        way = placement.way.value if placement and placement.runs else _NONE
        if placement and placement.admission is Admission.REFUSED:
            self._refused.labels(name, placement.reason.value).inc()
        for move in sequence.moves:
            self._moves.labels(move.cause.value).inc()
        if sequence.unmoved is not None:
            self._unmoved.labels(sequence.unmoved.value).inc()
        if sequence.placed_at_s is not None:
            self._placement.observe(sequence.placed_at_s - scope.arrived_at_s)
        if (ttft_s := scope.ttft_s(sequence)) is not None:
            self._ttft.labels(name, way).observe(ttft_s)
        if (tpot_s := sequence.tpot_s) is not None:
            self._tpot.labels(name, way).observe(tpot_s)
        if sequence.recomputed:
            self._recomputes.inc()


def _admission(scope: RequestScope) -> str:
    """The admission of the first sequence; those of one request are placed alike."""
    for sequence in scope.sequences.values():
        if sequence.placement is not None:
            return sequence.placement.admission.value
    return _NONE
