"""Builds the gateway: vLLM's app over the cluster, with our ASGI layers around it."""

import asyncio
import logging
import socket
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import fields
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orjson
from fastapi import FastAPI
from prometheus_client import REGISTRY
from starlette.types import ASGIApp
from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.envs import enable_envs_cache
from vllm.utils.system_utils import set_ulimit
from vllm.version import __version__ as vllm_version

from services.gateway.api_keys import ApiKeys
from services.gateway.capacity import Capacity, Faults
from services.gateway.cluster_core import Cluster
from services.gateway.config import GatewayOptions
from services.gateway.connections import HeadLimits
from services.gateway.engine_links import EngineLinks
from services.gateway.error_bodies import ErrorBodies
from services.gateway.grammar_server import GrammarServer, fork_server
from services.gateway.grammars import GrammarChecks
from services.gateway.health import Pages
from services.gateway.lifecycle import Lifecycle
from services.gateway.metrics import GatewayMetrics
from services.gateway.middleware import GenerationContext, Generations, LastAnswers, RequestIds
from services.gateway.planner_link import PlannerLimits
from services.gateway.request_body import Bodies
from services.gateway.scope import current_scope
from services.gateway.server import make_server, serve_until_told
from services.gateway.tenants import Tenants
from services.gateway.tenants_file import followed
from services.gateway.unrouted import drop_pages_we_cannot_serve, take_over_http_errors
from services.gateway.usage import UsageBook
from services.gateway.vllm_args import frontend_namespace
from services.gateway.vllm_frontend import ClusterClient, frontend_config
from services.gateway.wait_limits import WaitLimits
from services.gateway.worker_metrics import process_metrics
from services.gateway.worker_rules import portion
from shared.clock import Clock, MonotonicClock
from shared.listening import is_loopback
from shared.models import resolve_model
from shared.rpc.channels import PlannerClient
from shared.rpc.identity import identity_from
from shared.telemetry.task_count import count_tasks

_LOG = logging.getLogger(__name__)


def start_grammar_server(options: GatewayOptions, listener: socket.socket) -> GrammarServer:
    """Forks the grammar server; call this before there is an event loop."""

    def configure(model: str) -> VllmConfig:
        return _vllm_config(frontend_namespace(options, model))

    return fork_server(configure, options.grammar_limits(), to_close=listener)


async def run(
    options: GatewayOptions,
    listener: socket.socket,
    grammars: GrammarServer,
    serving: Callable[[], None],
    usage: UsageBook | None = None,
) -> int:
    """Serves until SIGTERM or SIGINT, then drains; calls `serving` first. `usage` is that of all
    workers; None: there are no others. Raises ConfigError.
    """
    clock, lifecycle = MonotonicClock(), Lifecycle()
    tenants, file = options.tenants(usage)
    args = await asyncio.to_thread(_read_args, options)
    grammars.prepare(args.model)
    async with (
        _cluster_client(options, args, clock, grammars) as client,
        followed(file, clock),
        _process_metrics(options, clock),
    ):
        app = await make_app(client, args, options, lifecycle, clock)
        quieten_answered_failures()
        set_ulimit()
        enable_envs_cache()  # vLLM reads a variable anew at each use otherwise
        server = make_server(
            layered(app, options, tenants, lifecycle, lambda: len(server.server_state.connections)),
            access_log=options.access_log,
            head_limits=HeadLimits(
                size_bytes=options.head_limit_bytes, time_s=options.head_limit_s
            ),
            idle_limit_s=options.idle_limit_s,
        )
        app.state.server = server  # vLLM's error handlers look for it
        host, port = listener.getsockname()[:2]
        if tenants.is_open and not is_loopback(host):
            _LOG.warning("every client that reaches %s:%d is served: no API key is set", host, port)
        _LOG.info("serving %s on http://%s:%d", options.api_model_names[0], host, port)
        serving()
        await serve_until_told(
            server,
            listener,
            lifecycle,
            drain_limit_s=options.drain_limit_s,
            drain_quiet_s=options.drain_quiet_s,
        )
    return 0


def _process_metrics(options: GatewayOptions, clock: Clock) -> AbstractAsyncContextManager[None]:
    if options.workers > 1:
        return process_metrics(clock)
    count_tasks(REGISTRY)
    return nullcontext()


def layered(
    app: ASGIApp,
    options: GatewayOptions,
    tenants: Tenants,
    lifecycle: Lifecycle,
    connections: Callable[[], int],
) -> ASGIApp:
    """Our layers around vLLM's app, from the innermost to the one that the server calls."""
    app = Bodies(ErrorBodies(app), options.body_limits())
    app = ApiKeys(app, tenants)
    app = Capacity(
        app,
        request_limit=portion(options.request_limit, options.workers),
        connection_limit=portion(options.connection_limit, options.workers),
        connections=connections,
    )
    return LastAnswers(RequestIds(Faults(app)), lifecycle)


async def make_app(
    client: Any, args: Namespace, options: GatewayOptions, lifecycle: Lifecycle, clock: Clock
) -> FastAPI:
    """The app of vLLM over `client`, an EngineClient, with our pages and a scope per generation."""
    tasks = await client.get_supported_tasks()
    app: FastAPI = build_app(args, tasks, client.model_config)
    description = asyncio.create_task(asyncio.to_thread(_openapi_page, app))
    drop_pages_we_cannot_serve(app)
    take_over_http_errors(app)
    catalogue = options.catalogue()
    context = GenerationContext(
        catalogue=catalogue,
        lifecycle=lifecycle,
        metrics=GatewayMetrics({catalogue.default.class_name, *catalogue.classes}),
        clock=clock,
        model=options.api_model_names[0],
    )
    # Inside vLLM's layers: where its metrics see our statuses.
    app.router.middleware_stack = Generations(app.router.middleware_stack, context)
    pages = Pages(
        lifecycle=lifecycle,
        check_fleet=client.check,
        catalogue=catalogue,
        versions={"version": vllm_version, "slos_serve": _own_version()},
        models=partial(_models, app),
        openapi=partial(asyncio.shield, description),
    )
    app.router.routes[:0] = pages.routes()
    await init_app_state(client, app.state, args, tasks)
    return app


def _openapi_page(app: FastAPI) -> bytes:
    """The OpenAPI description as JSON; it takes seconds to build."""
    return orjson.dumps(app.openapi())


async def _models(app: FastAPI) -> list[dict[str, Any]]:
    listed = await app.state.openai_serving_models.show_available_models()
    return [model.model_dump() for model in listed.data]


def quieten_answered_failures() -> None:
    """Stops vLLM from logging tracebacks of failures that the client receives as an answer."""
    for handler in logging.getLogger("vllm").handlers:
        handler.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    scope = current_scope.get()
    return record.exc_info is None or scope is None or scope.failure is None


def _vllm_config(args: Namespace) -> VllmConfig:
    names = [field.name for field in fields(AsyncEngineArgs) if hasattr(args, field.name)]
    return frontend_config(**{name: getattr(args, name) for name in names})


def _read_args(options: GatewayOptions) -> Namespace:
    return frontend_namespace(options, str(resolve_model(options.model, say=_LOG.info)))


@asynccontextmanager
async def _cluster_client(
    options: GatewayOptions, args: Namespace, clock: Clock, grammars: GrammarServer
) -> AsyncIterator[ClusterClient]:
    config = _vllm_config(args)
    identity = identity_from(options.cluster_secret_file)
    planner = PlannerClient(options.planner, identity)
    cluster = Cluster(
        planner=planner,
        engines=EngineLinks(clock, identity),
        clock=clock,
        waits=WaitLimits(
            first_reply_s=options.first_reply_limit_s, next_reply_s=options.next_reply_limit_s
        ),
        planner_limits=PlannerLimits(
            place_s=options.place_limit_s, hold_limit_s=options.hold_limit_s
        ),
        prefix_hashes=options.prefix_hashes,
    )
    client = ClusterClient(
        config,
        cluster,
        stage_ends=options.stage_ends,
        sequence_limit=options.sequence_limit,
        grammars=GrammarChecks(
            server=grammars,
            limits=options.grammar_limits(),
            size_limit_bytes=options.grammar_limit_bytes,
        ),
    )
    try:
        await client.start()
        yield client
    finally:
        await client.close()
        await planner.close()


def _own_version() -> str:
    try:
        return version("slos-serve")
    except PackageNotFoundError:
        return "unknown"
