from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from services.gateway.metrics import GatewayMetrics
from services.gateway.middleware import Generations
from services.gateway.scope import RequestScope
from shared.errors import EngineLost, Refused
from shared.requests import Admission, Placement, Reason, SloTargets
from tests.unit.gateway.http_fakes import (
    PLACED,
    Answer,
    add_sequence,
    call,
    context,
    give_tokens,
    receiver,
    request_scope,
    scope_now,
    send_json,
)

REFUSED = Placement(decision_id="d", admission=Admission.REFUSED, reason=Reason.MEMORY)


def counted(scope: RequestScope, outcome: str) -> CollectorRegistry:
    registry = CollectorRegistry()
    metrics = GatewayMetrics({"chat"}, registry)
    metrics.started()
    metrics.ended(scope, outcome)
    return registry


def test_a_served_request_is_counted_once_everywhere() -> None:
    scope = request_scope()
    give_tokens(add_sequence(scope, recomputed=True, placed_at_s=10.05))

    registry = counted(scope, "ok")

    labels = {"class": "chat", "admission": "admitted", "outcome": "ok"}
    way = {"class": "chat", "way": "disaggregated"}
    value = registry.get_sample_value
    assert value("slos_requests_total", labels) == 1
    assert value("slos_attainment_total", {"class": "chat", "met": "true"}) == 1
    assert value("slos_ttft_seconds_sum", way) == pytest.approx(0.1)
    assert value("slos_tpot_seconds_sum", way) == pytest.approx(0.01)
    assert value("slos_kv_recomputes_total") == 1
    assert value("slos_gateway_placement_seconds_sum") == pytest.approx(0.05)
    assert value("slos_inflight_requests") == 0


def test_a_refused_request_is_a_miss() -> None:
    scope = request_scope()
    add_sequence(scope, placement=REFUSED)

    value = counted(scope, "refused").get_sample_value

    assert value("slos_refused_total", {"class": "chat", "reason": "memory"}) == 1
    assert value("slos_attainment_total", {"class": "chat", "met": "false"}) == 1


@pytest.mark.parametrize("outcome", ["aborted", "invalid"])
def test_what_the_client_spoilt_itself_is_no_miss(outcome: str) -> None:
    scope = request_scope()
    add_sequence(scope)

    value = counted(scope, outcome).get_sample_value

    assert value("slos_attainment_total", {"class": "chat", "met": "false"}) is None


def test_a_class_that_nobody_configured_is_other() -> None:
    value = counted(request_scope(SloTargets(class_name="x" * 50)), "ok").get_sample_value

    labels = {"class": "other", "admission": "none", "outcome": "ok"}
    assert value("slos_requests_total", labels) == 1


@pytest.mark.parametrize(
    ("failure", "status", "outcome"),
    [
        (None, 200, "ok"),
        (None, 404, "invalid"),
        (EngineLost("gone"), 500, "failed"),
        (Refused("no", reason="never", decision_id="d", retry_after_s=None), 500, "refused"),
        (Refused("no", reason="compute", decision_id="d", retry_after_s=None), 500, "refused"),
    ],
)
async def test_the_outcome_is_what_the_client_saw(
    failure: EngineLost | Refused | None, status: int, outcome: str
) -> None:
    registry = CollectorRegistry()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        add_sequence(scope_now(), placement=replace(PLACED))
        scope_now().failure = failure
        await send_json(send, {}, status=status)

    await call(app, within=context(metrics=GatewayMetrics({"default"}, registry)))

    labels = {"class": "default", "admission": "admitted", "outcome": outcome}
    assert registry.get_sample_value("slos_requests_total", labels) == 1


async def test_a_client_that_leaves_is_aborted_whatever_the_app_still_says() -> None:
    registry = CollectorRegistry()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await send_json(send, None)

    within = context(metrics=GatewayMetrics({"default"}, registry))
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    await Generations(app, within)(scope, receiver(b"{}"), Answer().send)

    labels = {"class": "default", "admission": "none", "outcome": "aborted"}
    assert registry.get_sample_value("slos_requests_total", labels) == 1
