"""vLLM's own OpenAI app inside our layers, over a cluster that is a fake: what clients then see."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from shared.requests import Admission, Placement, PlacementMode, Reason
from tests.contracts.fake_gateway import PLACED, FakeFleet, gateway_app

pytestmark = pytest.mark.asyncio(loop_scope="module")

REFUSED = Placement(
    decision_id="d-2",
    admission=Admission.REFUSED,
    reason=Reason.COMPUTE,
    message="The queue is 4 s long.",
    predicted_ttft_s=4.2,
    retry_after_s=3.1,
)
SLO = {"class": "chat", "report": True}
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4},
}


@dataclass
class Gateway:
    fleet: FakeFleet
    http: httpx.AsyncClient
    openai: openai.AsyncOpenAI


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def built(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    fleet = FakeFleet()
    async with gateway_app(fleet, Path(tmp_path_factory.mktemp("tiny"))) as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            sdk = openai.AsyncOpenAI(
                base_url="http://gateway/v1", api_key="k", http_client=http, max_retries=0
            )
            yield Gateway(fleet=fleet, http=http, openai=sdk)


@pytest.fixture
def gateway(built: Gateway) -> Gateway:
    """The one gateway of this module, its fleet well again."""
    built.fleet.placement, built.fleet.lost_after_steps = PLACED, None
    built.fleet.breaks = False
    built.fleet.queries.clear()
    return built


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ROUTES)
async def test_a_refusal_is_a_429_with_the_planners_numbers(
    gateway: Gateway, path: str, *, stream: bool
) -> None:
    gateway.fleet.placement = REFUSED

    answer = await gateway.http.post(
        path, json={"model": "tiny", "stream": stream, "slo": SLO} | ROUTES[path]
    )

    error = answer.json()["error"]
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "4"
    assert answer.headers["x-slo-decision-id"] == "d-2"
    assert error["message"] == "The queue is 4 s long."
    assert error["slo"] == {
        "decision_id": "d-2",
        "admission": "refused",
        "reason": "compute",
        "predicted_ttft_ms": 4200.0,
        "retry_after_ms": 3100.0,
    }


@pytest.mark.parametrize("path", ROUTES)
async def test_a_json_answer_carries_the_report(gateway: Gateway, path: str) -> None:
    answer = await gateway.http.post(path, json={"model": "tiny", "slo": SLO} | ROUTES[path])

    slo = answer.json()["slo"]
    assert (answer.status_code, slo["met"], slo["decision_id"]) == (200, True, "d-1")
    assert slo["engines"] == {"prefill": None, "decode": "decode-0"}
    assert 0 < slo["achieved"]["tpot_ms"] < 60_000


@pytest.mark.parametrize("path", ROUTES)
async def test_a_stream_carries_the_report_once(gateway: Gateway, path: str) -> None:
    body = {"model": "tiny", "stream": True, "slo": SLO} | ROUTES[path]

    answer = await gateway.http.post(path, json=body)

    assert answer.status_code == 200
    assert answer.text.count('"slo":') == 1
    assert answer.headers["x-slo-way"] == "colocated"


async def test_a_stage_ends_where_the_text_of_the_configuration_is_produced(
    gateway: Gateway,
) -> None:
    stages = [{"name": "plan", "tpot_ms": 60_000}, {"name": "answer", "tpot_ms": 60_000}]
    body = {"model": "tiny", "prompt": "hi", "slo": {"stages": stages, "report": True}}

    answer = await gateway.http.post("/v1/completions", json=body)

    slo = answer.json()["slo"]
    tokens = {stage["name"]: stage["output_tokens"] for stage in slo["achieved"]["stages"]}
    assert answer.json()["choices"][0]["text"] == "def"
    assert (tokens, slo["met"]) == ({"plan": 2, "answer": 1}, True)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [True, False])
async def test_nobody_gets_a_report_unasked(gateway: Gateway, path: str, *, stream: bool) -> None:
    answer = await gateway.http.post(path, json={"model": "tiny", "stream": stream} | ROUTES[path])

    assert answer.status_code == 200
    assert "slo" not in answer.text


async def test_targets_way_and_id_reach_the_planner(gateway: Gateway) -> None:
    await gateway.http.post(
        "/v1/completions",
        json={"model": "tiny", "prompt": "hi", "slo": {"ttft_ms": 250, "way": "disaggregated"}},
        headers={"x-request-id": "mine", "x-session-id": "s"},
    )

    (query,) = gateway.fleet.queries
    assert query.targets.ttft_s == 0.25
    assert (query.forced_way, query.session_id) == (PlacementMode.DISAGGREGATED, "s")
    assert query.model == "tiny"


@pytest.mark.parametrize("path", ROUTES)
async def test_what_clients_call_their_requests_is_no_key_inside(
    gateway: Gateway, path: str
) -> None:
    body = {"model": "tiny", "request_id": "mine"} | ROUTES[path]
    headers = {"x-request-id": "mine"}

    answers = [await gateway.http.post(path, json=body, headers=headers) for _ in range(2)]

    keys = {key for one in gateway.fleet.queries for key in (one.request_id, one.group_id)}
    assert {answer.headers["x-request-id"] for answer in answers} == {"mine"}
    assert len({query.group_id for query in gateway.fleet.queries}) == 2
    assert not any("mine" in key for key in keys)
    assert {query.client_id for query in gateway.fleet.queries} == {"mine"}


async def test_sequences_of_one_prompt_are_a_group_and_those_of_two_are_none(
    gateway: Gateway,
) -> None:
    body = {"model": "tiny", "prompt": ["a", "b"], "n": 2}

    await gateway.http.post("/v1/completions", json=body)

    groups = [query.group_id for query in gateway.fleet.queries]
    assert sorted(groups.count(group) for group in set(groups)) == [2, 2]


@pytest.mark.parametrize("asked", [{"n": 100}, {"prompt": ["hi"] * 120}])
async def test_an_answer_has_one_decision_header_however_many_sequences(
    gateway: Gateway, asked: dict[str, Any]
) -> None:
    answer = await gateway.http.post(
        "/v1/completions", json={"model": "tiny", "prompt": "hi", "slo": {"report": True}} | asked
    )

    assert answer.status_code == 200
    assert len(answer.headers.get_list("x-slo-decision-id")) == 1
    assert len(answer.headers.raw) < 20
    assert answer.json()["slo"]["decision_ids"] == ["d-1"]


async def test_more_sequences_than_allowed_are_a_400_before_any_is_placed(
    gateway: Gateway,
) -> None:
    answer = await gateway.http.post(
        "/v1/completions", json={"model": "tiny", "prompt": "hi", "n": 5000}
    )

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")
    assert not gateway.fleet.queries


async def test_a_single_token_may_be_asked_for_as_disaggregated(gateway: Gateway) -> None:
    body = {"model": "tiny", "prompt": "hi", "max_tokens": 1}

    await gateway.http.post("/v1/completions", json=body | {"slo": {"way": "disaggregated"}})
    await gateway.http.post("/v1/completions", json=body)

    forced, free = gateway.fleet.queries
    assert (forced.whole_on_one_engine, free.whole_on_one_engine) == (False, True)


@pytest.mark.parametrize("report", [True, False])
async def test_a_response_cut_by_its_limit_ends_as_incomplete(
    gateway: Gateway, *, report: bool
) -> None:
    body = {"model": "tiny", "input": "hi", "stream": True, "slo": {"report": report}}

    text = (await gateway.http.post("/v1/responses", json=body)).text

    assert "event: response.completed" not in text
    assert text.count("event: response.incomplete") == 1
    assert text.count('"type":"response.incomplete"') == 1


@pytest.mark.parametrize("path", ["/scale_elastic_ep", "/is_scaling_elastic_ep", "/v1/systemone"])
async def test_pages_of_vllm_that_a_cluster_cannot_serve_are_a_404_with_a_reason(
    gateway: Gateway, path: str
) -> None:
    answer = await gateway.http.post(path, json={"new_data_parallel_size": 2})

    assert answer.status_code == 404
    assert path in answer.json()["error"]["message"]


async def test_a_model_has_a_page_of_its_own(gateway: Gateway) -> None:
    listed = (await gateway.http.get("/v1/models")).json()["data"]

    (model,) = listed
    assert (await gateway.http.get(f"/v1/models/{model['id']}")).json()["id"] == "tiny"
    assert (await gateway.http.get("/v1/models/other")).status_code == 404


async def test_the_description_covers_the_generation_routes(gateway: Gateway) -> None:
    described = (await gateway.http.get("/openapi.json")).json()["paths"]

    assert ROUTES.keys() <= described.keys()


@pytest.mark.parametrize("field", ["stop", "bad_words", "prompt", "user"])
async def test_half_a_surrogate_pair_is_a_400_that_names_its_field(
    gateway: Gateway, field: str
) -> None:
    body = json.dumps({"model": "tiny", "prompt": "hi"} | {field: "\ud800"})

    answer = await gateway.http.post(
        "/v1/completions", content=body, headers={"content-type": "application/json"}
    )

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize("usage", [True, False])
async def test_the_openai_client_reads_a_chat_stream_with_a_report(
    gateway: Gateway, *, usage: bool
) -> None:
    stream = await gateway.openai.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        stream_options={"include_usage": usage},
        extra_body={"slo": SLO},
    )

    chunks = [chunk async for chunk in stream]

    reports = [chunk for chunk in chunks if "slo" in (chunk.model_extra or {})]
    assert reports == [chunks[-1]]
    assert (chunks[-1].usage is not None) == usage
    assert chunks[-2].choices[0].finish_reason == "length"


async def test_the_openai_client_reads_several_choices_with_their_decisions(
    gateway: Gateway,
) -> None:
    answer = await gateway.openai.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "hi"}],
        n=2,
        extra_body={"slo": SLO},
    )

    assert len(answer.choices) == 2
    extra: Any = answer.model_extra
    assert extra["slo"]["decision_ids"] == ["d-1"]


async def test_the_openai_client_reads_a_response_stream_with_a_report(gateway: Gateway) -> None:
    stream = await gateway.openai.responses.create(
        model="tiny", input="hi", stream=True, extra_body={"slo": SLO}
    )

    events = [event async for event in stream]

    last: Any = events[-1]
    assert last.type == "response.incomplete"  # the fake fleet ends by the limit
    assert last.response.model_extra["slo"]["met"] is True


async def test_the_openai_client_raises_its_own_error_for_a_refusal(gateway: Gateway) -> None:
    gateway.fleet.placement = REFUSED

    with pytest.raises(openai.RateLimitError) as raised:
        await gateway.openai.completions.create(model="tiny", prompt="hi", stream=True)

    assert raised.value.code == "refused"


async def test_what_could_never_be_is_a_bad_request(gateway: Gateway) -> None:
    gateway.fleet.placement = replace(REFUSED, reason=Reason.NEVER, retry_after_s=None)

    with pytest.raises(openai.BadRequestError) as raised:
        await gateway.openai.completions.create(model="tiny", prompt="hi", stream=True)

    assert raised.value.code == "never_possible"


@pytest.mark.parametrize("path", ROUTES)
async def test_an_engine_lost_before_the_first_token_is_a_502(gateway: Gateway, path: str) -> None:
    gateway.fleet.lost_after_steps = 0

    answer = await gateway.http.post(path, json={"model": "tiny", "stream": True} | ROUTES[path])

    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "engine_lost"


@pytest.mark.parametrize("path", ROUTES)
async def test_an_engine_lost_amid_a_stream_is_its_last_event(gateway: Gateway, path: str) -> None:
    gateway.fleet.lost_after_steps = 2

    answer = await gateway.http.post(path, json={"model": "tiny", "stream": True} | ROUTES[path])

    assert answer.status_code == 200
    assert '"code":"engine_lost"' in answer.text
    assert "decode-0" in answer.text


@pytest.mark.parametrize("path", ROUTES)
async def test_an_engine_lost_amid_a_json_answer_is_a_502(gateway: Gateway, path: str) -> None:
    gateway.fleet.lost_after_steps = 2

    answer = await gateway.http.post(path, json={"model": "tiny"} | ROUTES[path])

    assert answer.status_code == 502


async def test_the_openai_client_hears_of_an_engine_lost_amid_a_stream(gateway: Gateway) -> None:
    gateway.fleet.lost_after_steps = 2
    stream = await gateway.openai.completions.create(model="tiny", prompt="hi", stream=True)

    with pytest.raises(openai.APIError, match="decode-0"):
        [chunk async for chunk in stream]


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"vllm_xargs": {"kv_transfer_params": "x"}}, "kv_transfer_params"),
        ({"kv_transfer_params": {"do_remote_prefill": True}, "n": 2}, "kv_transfer_params"),
        ({"priority": 2**63 - 1}, "priority"),
    ],
)
async def test_what_only_the_cluster_may_set_is_refused_by_its_name(
    gateway: Gateway, extra: dict[str, Any], param: str
) -> None:
    answer = await gateway.http.post(
        "/v1/completions", json={"model": "tiny", "prompt": "hi"} | extra
    )

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert not gateway.fleet.queries


@pytest.mark.parametrize("stream", [True, False])
async def test_a_fault_of_ours_is_a_500_that_says_so(gateway: Gateway, *, stream: bool) -> None:
    gateway.fleet.breaks = True

    answer = await gateway.http.post(
        "/v1/completions", json={"model": "tiny", "prompt": "hi", "stream": stream}
    )

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (500, "internal")
    assert "its log" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/v1/embeddings", 404), ("GET", "/v1/completions", 405), ("GET", "/nothing", 404)],
)
async def test_what_no_page_takes_is_answered_in_the_openai_shape(
    gateway: Gateway, method: str, path: str, status: int
) -> None:
    answer = await gateway.http.request(method, path)

    assert answer.status_code == status
    assert path in answer.json()["error"]["message"]


async def test_a_body_that_is_no_text_is_answered_in_the_openai_shape(gateway: Gateway) -> None:
    answer = await gateway.http.post(
        "/v1/completions", content=b'"\xff"', headers={"content-type": "application/json"}
    )

    assert answer.status_code == 400
    assert "0xff" in answer.json()["error"]["message"]


async def test_our_pages_come_before_vllms(gateway: Gateway) -> None:
    pages = {path: await gateway.http.get(path) for path in ("/ready", "/health", "/version")}

    assert {page.status_code for page in pages.values()} == {200}
    assert pages["/version"].json().keys() == {"version", "slos_serve"}


async def test_vllms_metrics_and_ours_are_on_one_page(gateway: Gateway) -> None:
    page = (await gateway.http.get("/metrics")).text

    assert "slos_requests_total" in page
    assert "vllm:request_success_total" in page
    assert 'http_requests_total{handler="/v1/chat/completions"' in page
