"""HTTP pages about the gateway: readiness, versions, models, classes, OpenAPI description."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.gateway import http_errors
from services.gateway.http_errors import HttpError
from services.gateway.lifecycle import Lifecycle
from services.gateway.report import milliseconds
from services.gateway.slo_inputs import Catalogue
from shared.errors import SlosError
from shared.requests import SloTargets


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """`check_fleet` raises the SlosError that any request would get now.

    `models` lists the models in the API; `openapi` gives the OpenAPI description as JSON.
    """

    lifecycle: Lifecycle
    check_fleet: Callable[[], None]
    catalogue: Catalogue
    versions: Mapping[str, str]
    models: Callable[[], Awaitable[list[dict[str, Any]]]]
    openapi: Callable[[], Awaitable[bytes]]

    def routes(self) -> list[Route]:
        """The routes, to be matched before vLLM's routes of the same paths."""
        return [
            Route("/live", self.live),
            Route("/ready", self.ready),
            Route("/health", self.health),
            Route("/version", self.version),
            Route("/v1/slo/classes", self.classes),
            Route("/v1/models/{name:path}", self.model),
            Route("/openapi.json", self.description),
        ]

    async def live(self, _: Request) -> Response:
        """The process answers."""
        return JSONResponse({"status": "live"})

    async def ready(self, _: Request) -> Response:
        """200 when a request sent now would be served, else 503 with what is missing."""
        missing = self._missing()
        return JSONResponse({"status": "ready"}) if missing is None else _answer(missing)

    async def health(self, _: Request) -> Response:
        """As vLLM's: an empty answer when ready."""
        missing = self._missing()
        return Response() if missing is None else _answer(missing)

    async def version(self, _: Request) -> Response:
        return JSONResponse(dict(self.versions))

    async def classes(self, _: Request) -> Response:
        """The classes that a request may name, with their targets."""
        named = {self.catalogue.default.class_name: self.catalogue.default}
        named |= self.catalogue.classes
        return JSONResponse(
            {
                "object": "list",
                "default": self.catalogue.default.class_name,
                "data": [_class(name, targets) for name, targets in sorted(named.items())],
            }
        )

    async def model(self, request: Request) -> Response:
        """One model of the list at /v1/models."""
        name = request.path_params["name"]
        models = await self.models()
        for model in models:
            if model["id"] == name:
                return JSONResponse(model)
        names = ", ".join(model["id"] for model in models)
        return _answer(
            HttpError(
                status=404,
                type="NotFoundError",
                code="model_not_found",
                message=f"This gateway has no such model; it serves {names}.",
                param="model",
            )
        )

    async def description(self, _: Request) -> Response:
        """The OpenAPI description."""
        return Response(await self.openapi(), media_type="application/json")

    def _missing(self) -> HttpError | None:
        if self.lifecycle.stopping:
            return http_errors.draining()
        try:
            self.check_fleet()
        except SlosError as error:
            return http_errors.from_failure(error, None)
        return None


def _answer(error: HttpError) -> Response:
    body = error.body_bytes()
    headers = {name.decode(): value.decode() for name, value in error.headers(body)}
    return Response(body, status_code=error.status, headers=headers)


def _class(name: str, targets: SloTargets) -> dict[str, Any]:
    return {
        "id": name,
        "object": "slo.class",
        "ttft_ms": milliseconds(targets.ttft_s),
        "ttft_slowdown": targets.ttft_slowdown,
        "tpot_ms": milliseconds(targets.tpot_s),
        "stages": [
            {"name": stage.name, "tpot_ms": milliseconds(stage.tpot_s)} for stage in targets.stages
        ],
        "pacing": targets.pacing.value,
        "on_refuse": targets.on_refuse.value,
        "value": targets.value,
    }
