"""Every error answer of the gateway has one shape: that of OpenAI, with `code` as text."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.contracts.fake_gateway import FakeFleet, gateway_app

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"content-type": "application/json"}
# Bodies that no route, or only some, can use.
BODIES: dict[str, bytes] = {
    "no JSON": b"{oops",
    "no object": b"[]",
    "empty object": b"{}",
    "other model": json.dumps(
        {
            "model": "other",
            "messages": [{"role": "user", "content": "hi"}],
            "prompt": "hi",
            "input": "hi",
            "tokens": [1],
            "max_tokens": 4,
        }
    ).encode(),
    "unfit slo": b'{"model": "tiny", "prompt": "hi", "messages": [], "slo": {"ttft_ms": "soon"}}',
    "no body": b"",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway_app(FakeFleet(), Path(tmp_path_factory.mktemp("tiny"))) as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield client


def fault_in(answer: httpx.Response, path: str) -> str:
    """What its body lacks of the shape; empty for a success or an error of the shape."""
    if answer.status_code < 400:
        return ""
    try:
        body = answer.json()
    except json.JSONDecodeError:
        return f"no JSON: {answer.text[:80]!r}"
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return f"no error: {body}"
    named = {"type": "error"} if path.startswith("/v1/messages") else {}
    fits = (
        {key: value for key, value in body.items() if key != "error"} == named
        and error.keys() - {"slo"} == {"message", "type", "param", "code"}
        and all(isinstance(error[key], str) and error[key] for key in ("message", "type", "code"))
        and (error["param"] is None or isinstance(error["param"], str))
        and answer.headers["content-length"] == str(len(answer.content))
    )
    return "" if fits else f"{body}"


async def test_every_error_of_every_route_has_the_shape(http: httpx.AsyncClient) -> None:
    paths: dict[str, dict[str, Any]] = (await http.get("/openapi.json")).json()["paths"]
    faults, errors = [], 0
    for path, methods in paths.items():
        named = path.replace("{", "").replace("}", "")
        for method in {*methods, "delete"}:
            for what, body in BODIES.items():
                answer = await http.request(method, named, content=body, headers=JSON)
                errors += answer.status_code >= 400
                fault = fault_in(answer, named)
                if fault:
                    faults.append(f"{method} {named} ({what}): {answer.status_code} {fault}")
    assert not faults, "\n".join(faults)
    assert errors > len(paths)


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("/v1/completions", {"model": "other", "prompt": "hi"}, 404, "model_not_found", "model"),
        ("/v1/chat/completions", {"model": "tiny"}, 400, "invalid_request", "messages"),
        (
            "/v1/completions",
            {"model": "tiny", "prompt": "hi " * 9000},
            400,
            "context_length_exceeded",
            None,
        ),
        ("/v1/responses/r-1/cancel", {}, 404, "not_found", None),
        ("/v1/messages/count_tokens", {"model": "tiny"}, 400, "invalid_request", None),
    ],
)
async def test_errors_have_the_codes_that_clients_of_openai_look_for(
    http: httpx.AsyncClient,
    path: str,
    body: dict[str, Any],
    status: int,
    code: str,
    param: str | None,
) -> None:
    answer = await http.post(path, json=body)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert param is None or error["param"] == param


async def test_a_head_request_has_no_body(http: httpx.AsyncClient) -> None:
    assert (await http.head("/nothing")).content == b""
