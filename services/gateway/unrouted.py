"""Answers unknown paths, wrong methods and bodies that are not JSON in the OpenAI shape."""

from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.http_errors import HttpError, kind_of

# Pages of vLLM's app that act on the one engine behind it.
_OF_ONE_ENGINE: Final = frozenset(
    {
        "/scale_elastic_ep",
        "/is_scaling_elastic_ep",
        "/kv_event_sources",
        "/inference/v1/abort_requests",
    }
)
_OF_ADAPTERS: Final = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
_OF_POOLING: Final = frozenset(
    {
        "/v1/embeddings",
        "/v2/embed",
        "/pooling",
        "/classify",
        "/score",
        "/v1/score",
        "/rerank",
        "/v1/rerank",
        "/v2/rerank",
    }
)
_OF_NO_MODEL_HERE: Final = frozenset({"/v1/systemone"})


def drop_pages_we_cannot_serve(app: Starlette) -> None:
    """Removes routes that would fail here, so that they are answered as unknown."""
    unserved = _OF_ONE_ENGINE | _OF_NO_MODEL_HERE
    kept = [route for route in app.router.routes if getattr(route, "path", "") not in unserved]
    app.router.routes[:] = kept


def take_over_http_errors(app: Starlette) -> None:
    """Makes `answer_unrouted` the handler of Starlette's HTTPException.

    vLLM's app comes with its layers built already, so the existing layer gets it, too.
    """
    app.add_exception_handler(HTTPException, answer_unrouted)
    layer: Any = app.middleware_stack
    while layer is not None and not isinstance(layer, ExceptionMiddleware):
        layer = getattr(layer, "app", None)
    if layer is not None:
        layer.add_exception_handler(HTTPException, answer_unrouted)


async def answer_unrouted(request: Request, error: Exception) -> Response:
    """Answers Starlette's HTTPException, in place of its own body `{"detail": ...}`."""
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow", "")
    kind, code = kind_of(error.status_code)
    answer = HttpError(
        status=error.status_code,
        type=kind,
        code=code,
        message=_message(request, error, allowed),
    )
    path = request.url.path
    return Response(
        answer.body_bytes(path=path),
        status_code=answer.status,
        headers=dict(error.headers or {}),
        media_type="application/json",
    )


def _message(request: Request, error: HTTPException, allowed: str) -> str:
    path = request.url.path
    if path in _OF_ONE_ENGINE:
        return f"{path} acts on one engine, and this gateway serves many; ask the engine's host."
    if error.status_code == 404 and path in _OF_POOLING:
        return (
            f"{path} is not served: this gateway generates text, and its engines run no pooling "
            "models. Serve embeddings, scores and reranking with `vllm serve` beside it."
        )
    if error.status_code == 404 and path in _OF_ADAPTERS:
        return (
            f"{path} is closed: start the gateway with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its "
            "environment, and gateway and engines with --vllm '{enable_lora: true}'."
        )
    if error.status_code == 404:
        return (
            f"This gateway has no {path}; it generates text at /v1/chat/completions, "
            "/v1/completions, /v1/responses and /v1/messages, and /openapi.json lists the rest."
        )
    if error.status_code == 405:
        return f"{path} does not take {request.method}; send {allowed or 'another method'}."
    why = f": {error.__cause__}" if error.__cause__ else ""
    return f"{error.detail}{why}"
