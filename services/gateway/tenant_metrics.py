"""Prometheus counters by tenant; only configured tenants are labels."""

from prometheus_client import CollectorRegistry, Counter

from services.gateway.scope import RequestScope
from shared.errors import OverLimit


class TenantMetrics:
    """Counters under `slos_tenant_`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "slos_tenant_requests_total",
            "Requests by tenant and how they ended.",
            ("tenant", "outcome"),
            registry=registry,
        )
        self._attainment = Counter(
            "slos_tenant_attainment_total",
            "Requests with an SLO, by whether a promise was given and kept.",
            ("tenant", "met"),
            registry=registry,
        )
        self._tokens = Counter(
            "slos_tenant_tokens_total",
            "Tokens of prompts that ran, and of answers.",
            ("tenant", "kind"),
            registry=registry,
        )
        self._limited = Counter(
            "slos_tenant_limited_total",
            "Requests refused because their tenant was at a limit.",
            ("tenant", "limit"),
            registry=registry,
        )

    def limited(self, tenant: str, limit: str) -> None:
        self._limited.labels(tenant, limit).inc()

    def ended(self, scope: RequestScope, outcome: str, kept: bool | None) -> None:
        """`outcome` is as in `GatewayMetrics.ended`; `kept` is None without an SLO."""
        tenant = scope.account.tenant.name
        self._requests.labels(tenant, outcome).inc()
        if kept is not None:
            self._attainment.labels(tenant, str(kept).lower()).inc()
        if isinstance(scope.failure, OverLimit):
            self.limited(tenant, scope.failure.limit)
        ran = [one for one in scope.sequences.values() if one.placed_at_s is not None]
        self._tokens.labels(tenant, "prompt").inc(sum(one.prompt_tokens for one in ran))
        self._tokens.labels(tenant, "generated").inc(sum(one.output_tokens for one in ran))
