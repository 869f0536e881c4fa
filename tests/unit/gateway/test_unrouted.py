import json

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from services.gateway.unrouted import answer_unrouted


async def told(
    error: HTTPException, path: str = "/v1/there"
) -> tuple[int, dict[str, str], dict[str, str]]:
    """Status, headers and the error of an answer to POST."""
    scope: dict[str, object] = {"type": "http", "method": "POST", "path": path}
    answer = await answer_unrouted(Request(scope | {"headers": []}), error)
    return answer.status_code, dict(answer.headers), json.loads(bytes(answer.body))["error"]


async def test_an_unknown_path_is_told_what_there_is() -> None:
    status, _, error = await told(HTTPException(404))

    assert (status, error["code"]) == (404, "not_found")
    assert "no /v1/there" in error["message"]
    assert "/v1/chat/completions" in error["message"]


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank"]
)
async def test_what_a_pooling_model_would_answer_is_refused_with_the_reason(path: str) -> None:
    status, _, error = await told(HTTPException(404), path)

    assert status == 404
    assert path in error["message"]
    assert "pooling" in error["message"]


async def test_closed_adapter_pages_say_how_they_are_opened() -> None:
    _, _, error = await told(HTTPException(404), "/v1/load_lora_adapter")

    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1" in error["message"]
    assert "enable_lora" in error["message"]


async def test_a_wrong_method_is_told_the_right_one() -> None:
    status, headers, error = await told(HTTPException(405, headers={"Allow": "GET"}))

    assert (status, headers["allow"]) == (405, "GET")
    assert "does not take POST; send GET" in error["message"]


@pytest.mark.parametrize("status", [400, 413, 415])
async def test_anything_else_keeps_its_status_and_says_why(status: int) -> None:
    broken = HTTPException(status, "There was an error parsing the body")
    broken.__cause__ = ValueError("byte 7")

    answered, _, error = await told(broken)

    assert answered == status
    assert error["message"] == "There was an error parsing the body: byte 7"
