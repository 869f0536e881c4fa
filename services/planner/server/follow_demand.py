"""Computes every few seconds how many engines the last requests needed.

Compiled code computes it in a thread, beside the rounds of decisions. With a cold cache it is first
compiled in a process of its own: compiling holds the GIL, and rounds would wait for it.
"""

import asyncio
import logging
import sys
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

from services.planner.scaling.scaler import Question, answer
from services.planner.scaling.warm_up import is_warm, warm_up
from services.planner.server.metrics import PlannerMetrics
from services.planner.server.service import PlannerService
from shared.clock import Clock

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_COMPILE = (sys.executable, "-m", "services.planner.scaling.warm_up")
_COMPILE_LIMIT_S = 900.0  # it takes a minute of an idle core


async def follow_demand(
    service: PlannerService, metrics: PlannerMetrics, clock: Clock, every_s: float
) -> None:
    """Runs until cancelled. A computation that fails leaves the number as it is."""
    if not is_warm():
        await _compile()
    await beside(warm_up)
    while True:
        await clock.sleep(every_s)
        question = service.scaler.question(service.state, clock.now())
        if question is not None:
            try:
                await _follow(question, service, metrics, clock)
            except Exception:  # noqa: BLE001 - whatever it is, the next window may be answered
                _LOG.exception("desired engines stay as they are: the replay failed")


async def _follow(
    question: Question, service: PlannerService, metrics: PlannerMetrics, clock: Clock
) -> None:
    scaler, began_s, before = service.scaler, clock.now(), service.scaler.size
    found = await beside(lambda: answer(question))
    now = clock.now()
    metrics.scaling_took(now - began_s)
    scaler.take(question, found, now)
    if scaler.size is not None:
        metrics.desires(scaler.size)
    if scaler.size != before:
        _LOG.info("desired engines: %s (%s before)", scaler.size, before)


async def _compile() -> None:
    """Compiles the code to disk. Where that fails, it is compiled in this process later."""
    _LOG.info("compiling the replay of desired engines, once per version, beside decisions")
    child = await asyncio.create_subprocess_exec(*_COMPILE, stdin=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(_COMPILE_LIMIT_S):
            await child.wait()
        _LOG.info("compiled the replay")
    except TimeoutError:
        _LOG.warning("compiling the replay took more than %g s and was ended", _COMPILE_LIMIT_S)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def beside(function: Callable[[], _T]) -> _T:
    """Calls the function in a daemon thread, which a planner that ends does not wait for."""
    done: Future[_T] = Future()

    def run() -> None:
        done.set_running_or_notify_cancel()  # now a cancelled caller does not cancel it
        try:
            done.set_result(function())
        except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
            done.set_exception(error)

    Thread(target=run, name="desired-engines", daemon=True).start()
    return await asyncio.wrap_future(done)
