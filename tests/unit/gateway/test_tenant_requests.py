"""A tenant's requests through our HTTP layers, from its key to its limits."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from services.gateway.api_keys import ApiKeys
from services.gateway.metrics import GatewayMetrics
from services.gateway.middleware import Generations
from services.gateway.tenants import TenantOptions, Tenants, hash_of
from shared.errors import OverLimit
from tests.unit.gateway.http_fakes import Answer, context, receiver, scope_now, send_json

Ask = Callable[..., Awaitable[Answer]]


async def served(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive
    tenant = scope_now().account.tenant
    await send_json(send, {"tenant": tenant.name, "weight": tenant.weight})


def gateway(registry: CollectorRegistry | None = None, **options: Any) -> Ask:
    """Where tenant `acme` has these options."""
    tenants = Tenants(own_keys=["own"])
    acme = TenantOptions(keys=(hash_of(b"acme"),), **options)
    tenants.take({"acme": acme})
    metrics = GatewayMetrics({"chat"}, registry or CollectorRegistry())
    app = ApiKeys(Generations(served, context(metrics=metrics, model="small")), tenants)

    async def ask(key: str = "acme", body: object = None) -> Answer:
        headers = [(b"authorization", f"Bearer {key}".encode())]
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": headers,
        }
        answer = Answer()
        await app(scope, receiver(orjson.dumps(body or {})), answer.send)
        return answer

    return ask


async def test_a_request_is_of_the_tenant_of_its_key() -> None:
    ask = gateway(weight=3.0)

    assert (await ask()).json == {"tenant": "acme", "weight": 3.0}
    assert (await ask("own")).json == {"tenant": "default", "weight": 1.0}
    assert (await ask("nobody")).status == 401


async def test_over_a_limit_is_a_429_that_names_it_and_says_when_to_come_back() -> None:
    registry = CollectorRegistry()
    ask = gateway(registry, requests_per_minute=1)
    assert (await ask()).status == 200

    over = await ask()

    assert over.status == 429
    assert over.headers["retry-after"] == "60"
    error = over.json["error"]
    assert error["code"] == "rate_limit_exceeded"
    assert error["type"] == "TooManyRequestsError"
    assert "limit of 1 requests_per_minute; try again in 60 s" in error["message"]
    assert (await ask("own")).status == 200
    labels = {"tenant": "acme", "limit": "requests_per_minute"}
    assert registry.get_sample_value("slos_tenant_limited_total", labels) == 1


@pytest.mark.parametrize(
    ("options", "body", "param"),
    [
        ({"classes": ("chat",)}, {}, "slo.class"),
        ({"classes": ("default",)}, {"slo": {"class": "chat"}}, "slo.class"),
        ({"models": ("other",)}, {}, "model"),
        ({"models": ("small",)}, {"model": "other"}, "model"),
    ],
)
async def test_what_is_not_open_to_a_tenant_is_a_403_that_says_what_is(
    options: dict[str, Any], body: object, param: str
) -> None:
    answer = await gateway(**options)(body=body)

    assert answer.status == 403
    assert answer.json["error"]["param"] == param
    assert answer.json["error"]["code"] == "not_allowed"
    allowed = next(iter(options.values()))
    assert f"it may ask for {allowed[0]}." in answer.json["error"]["message"]


@pytest.mark.parametrize("body", [{"model": "small"}, {"slo": {"class": "chat"}}, {}])
async def test_what_is_open_to_a_tenant_is_served(body: object) -> None:
    ask = gateway(classes=("default", "chat"), models=("small",))

    assert (await ask(body=body)).status == 200


async def test_a_limit_that_is_met_after_the_request_came_in_is_counted_as_well() -> None:
    registry = CollectorRegistry()
    metrics = GatewayMetrics({"chat"}, registry)

    async def over(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive, send
        error = OverLimit("no tokens", limit="tokens_per_minute", retry_after_s=2.0)
        scope_now().failure = error
        raise error

    answer = Answer()
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/completions",
        "headers": [],
    }
    await Generations(over, context(metrics=metrics))(scope, receiver(b"{}"), answer.send)

    assert answer.status == 429
    assert answer.headers["retry-after"] == "2"
    labels = {"tenant": "default", "limit": "tokens_per_minute"}
    assert registry.get_sample_value("slos_tenant_limited_total", labels) == 1
