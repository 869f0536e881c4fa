"""vLLM's own OpenAI app inside our layers, over planner and engines that are fakes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import REGISTRY
from starlette.types import ASGIApp
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.outputs import LogprobsLists

from services.gateway.app import layered, make_app
from services.gateway.cluster_core import Cluster
from services.gateway.config import ClassTargets, GatewayOptions
from services.gateway.engine_calls import Reply
from services.gateway.lifecycle import Lifecycle
from services.gateway.tenants import Tenants
from services.gateway.vllm_args import frontend_namespace
from services.gateway.vllm_frontend import ClusterClient, frontend_config
from shared.clock import MonotonicClock
from shared.engines import EngineDescription, EngineView, Role
from shared.errors import EngineLost
from shared.models.tiny import make_tiny_model
from shared.requests import (
    Admission,
    EngineRef,
    Outcome,
    Placement,
    PlacementQuery,
    PrefixExport,
    Reason,
)

ENGINE = EngineRef(name="decode-0", engine_id="d", address="fake")
PLACED = Placement(
    decision_id="d-1", admission=Admission.ADMITTED, reason=Reason.NONE, decode=ENGINE
)
VIEW = EngineView(
    description=EngineDescription(
        name=ENGINE.name,
        engine_id=ENGINE.engine_id,
        role=Role.DECODE,
        address=ENGINE.address,
        model="tiny",
        vllm_version="any",
        block_size_tokens=16,
        kv_blocks=100,
        kv_bytes_per_token=1,
        max_model_len_tokens=1024,
        max_running_requests=8,
        max_step_tokens=512,
        max_speculation_tokens=0,
    ),
    draining=False,
    running=0,
    waiting=0,
    free_kv_blocks=100,
)


def logprobs_of(token_id: int, request: EngineCoreRequest) -> LogprobsLists | None:
    """The token alone, as an engine gives it where none beside it was asked for."""
    params = request.sampling_params
    if params is None or params.logprobs is None:
        return None
    return LogprobsLists(
        np.array([[token_id]], dtype=np.int32),
        np.zeros((1, 1), dtype=np.float32),
        np.ones(1, dtype=np.int64),
    )


@dataclass
class FakeFleet:
    """Planner and engines in one: places as `placement` says and answers in three steps."""

    placement: Placement = PLACED
    lost_after_steps: int | None = None
    breaks: bool = False
    queries: list[PlacementQuery] = field(default_factory=list)

    async def place(self, query: PlacementQuery, limit_s: float) -> Placement:
        assert limit_s > 0
        self.queries.append(query)
        return self.placement

    async def settle(self, outcomes: Sequence[Outcome], exports: Sequence[PrefixExport]) -> None:
        """Forgets them."""

    async def watch(self) -> AsyncIterator[list[EngineView]]:
        yield [VIEW]
        await asyncio.Event().wait()

    async def generate(
        self, _: EngineRef, request: EngineCoreRequest, __: object
    ) -> AsyncGenerator[Reply, None]:
        if self.breaks:
            raise LookupError("a fault")
        for step in range(3):
            if step == self.lost_after_steps:
                raise EngineLost("connection reset")
            await asyncio.sleep(0.002)
            finish = FinishReason.LENGTH if step == 2 else None
            output = EngineCoreOutput(
                request.request_id,
                [70 + step],
                new_logprobs=logprobs_of(70 + step, request),
                finish_reason=finish,
            )
            yield Reply(outputs=[output], core_time_s=0.0)

    async def answers(self, _: EngineRef) -> bool:
        return True

    async def prune(self, *_: object, **__: object) -> None:
        """Has nothing to close."""

    async def close(self) -> None:
        """Has nothing to close."""


@contextmanager
def metrics_of_its_own() -> Iterator[None]:
    """Takes what was registered meanwhile out again, so that a process can have one app after
    another.
    """
    before = set(REGISTRY._collector_to_names)
    try:
        yield
    finally:
        for made in set(REGISTRY._collector_to_names) - before:
            REGISTRY.unregister(made)


@asynccontextmanager
async def gateway_app(fleet: FakeFleet, folder: Path) -> AsyncIterator[ASGIApp]:
    """All that the gateway's server would call."""
    model, clock = make_tiny_model(folder), MonotonicClock()
    options = GatewayOptions(
        model="tiny", classes={"chat": ClassTargets(ttft_ms=60_000, tpot_ms=60_000)}
    )
    args = frontend_namespace(options, str(model))
    config = frontend_config(**vars(AsyncEngineArgs.from_cli_args(args)))
    engines: Any = fleet
    cluster = Cluster(planner=fleet, engines=engines, clock=clock)
    client = ClusterClient(config, cluster, stage_ends={"plan": "e"})
    await client.start()
    lifecycle = Lifecycle()
    with metrics_of_its_own():
        app = await make_app(client, args, options, lifecycle, clock)
        try:
            yield layered(app, options, Tenants(), lifecycle, lambda: 1)
        finally:
            await client.close()
