"""The calls of one request to its engines, and their results."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest

from services.gateway.continuation import Form, Prefilled
from shared.requests import EngineRef
from shared.rpc import slos_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Outputs of one request, at least one, from one engine step or several that came together.

    `core_time_s` is the time of the last step on the engine core's monotonic clock.
    """

    outputs: list[EngineCoreOutput]
    core_time_s: float
    weight_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The KV of a prompt that waits on its prefill engine for a decode engine.

    `request` has that prompt and the request's id on the prefill engine.
    """

    engine: EngineRef
    request: EngineCoreRequest
    prefilled: Prefilled
    form: Form


class Engines(Protocol):
    """The engine calls that a `Drive` makes."""

    def generate(
        self, engine: EngineRef, request: EngineCoreRequest, terms: pb.EngineTerms
    ) -> AsyncGenerator[Reply, None]:
        """Yields replies until the request has ended. Raises EngineLost and EngineDraining.

        Closing the generator aborts the request on the engine.
        """

    def release(self, engine: EngineRef, request_id: str) -> None:
        """Frees KV blocks that `engine` holds and no engine will fetch."""

    def wind_up(
        self, engine: EngineRef, request_id: str, prefill: asyncio.Task[Prefilled | None]
    ) -> None:
        """Aborts a prefill on `engine` and frees its blocks."""
