"""Starts an engine core for its profile alone and ends it again."""

import asyncio
import os
import tempfile
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import uvloop

from shared.clock import MonotonicClock
from shared.engine.config import EngineOptions
from shared.engine.environment import free_threads
from shared.engine.link import HostEnd
from shared.engine.profile import Profile, Profiler
from shared.engine.vllm_core import EngineCore
from shared.engines import Role
from shared.kv_transfer.settings import KvTransport
from shared.models import resolve_model

_CORE_GRACE_S = 2.0


def profile_alone(options: EngineOptions) -> Profile | None:
    """None when too little could be measured. Raises ConfigError, EngineLost; blocking."""
    options = replace(options, kv_transport=KvTransport.NONE)  # nothing is fetched from it
    with tempfile.TemporaryDirectory(prefix="slos-", dir=options.run_dir or None) as folder:
        profile: Profile | None = uvloop.run(_profile(options, Path(folder) / "link"))
        return profile


async def _profile(options: EngineOptions, path: Path) -> Profile | None:
    cores = os.sched_getaffinity(0)
    async with AsyncExitStack() as stack:
        link = HostEnd.bind(path)
        stack.callback(link.close)
        model_path = str(resolve_model(options.model))
        core = EngineCore.start(
            options, role=Role.DECODE, link=f"ipc://{path}", model_path=model_path
        )
        stack.push_async_callback(asyncio.to_thread, core.shut_down, _CORE_GRACE_S)
        core.kv = await link.layout()
        free_threads(cores)
        profiler = Profiler(
            core=core, link=link, clock=MonotonicClock(), options=options, model_path=model_path
        )
        return await profiler.profile()
