"""Engines that say what a test tells them to."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason

from services.gateway.engine_calls import Reply
from shared.requests import EngineRef
from shared.rpc import slos_pb2 as pb

P, D, E = (EngineRef(name=name, engine_id=name, address=name) for name in ("p", "d", "e"))
PROMPT = [1, 2, 3]
BLOCKS = {"do_remote_prefill": True, "remote_num_tokens": len(PROMPT)}
Answer = Callable[[EngineCoreRequest], AsyncGenerator[Reply, None]]


def reply(*tokens: int, core_time_s: float = 0.0, **output: Any) -> Reply:
    return Reply(outputs=[EngineCoreOutput("r1", list(tokens), **output)], core_time_s=core_time_s)


def says(*replies: Reply | Exception, then_hang: bool = False) -> Answer:
    async def answer(_: EngineCoreRequest) -> AsyncGenerator[Reply, None]:
        for each in replies:
            await asyncio.sleep(0)
            if isinstance(each, Exception):
                raise each
            yield each
        if then_hang:
            await asyncio.Event().wait()

    return answer


def handing_over(token: int = 9, **output: Any) -> Answer:
    given: dict[str, Any] = {
        "finish_reason": FinishReason.LENGTH,
        "kv_transfer_params": BLOCKS,
        **output,
    }
    return says(reply(token, **given))


def ending() -> Reply:
    return reply(11, finish_reason=FinishReason.STOP)


@dataclass
class FakeEngines:
    p: Answer = field(default_factory=says)
    d: Answer = field(default_factory=says)
    e: Answer = field(default_factory=says)
    asked: list[tuple[str, EngineCoreRequest]] = field(default_factory=list)
    terms: list[pb.EngineTerms] = field(default_factory=list)
    released: list[tuple[str, str]] = field(default_factory=list)
    wound_up: list[str] = field(default_factory=list)
    closed: int = 0

    async def generate(
        self, engine: EngineRef, request: EngineCoreRequest, terms: pb.EngineTerms
    ) -> AsyncGenerator[Reply, None]:
        self.asked.append((engine.name, request))
        self.terms.append(terms)
        try:
            async for each in {"p": self.p, "d": self.d, "e": self.e}[engine.name](request):
                yield each
        finally:
            self.closed += 1

    def release(self, engine: EngineRef, request_id: str) -> None:
        self.released.append((engine.name, request_id))

    def wind_up(self, engine: EngineRef, request_id: str, prefill: Any) -> None:  # noqa: ARG002
        self.wound_up.append(request_id)
        prefill.cancel()


async def answering(_: EngineRef) -> bool:
    """A probe of engines that always answer."""
    return True
