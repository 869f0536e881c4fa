"""Asks every few seconds how many engines the last requests needed.

The answer is compiled code in a thread of its own; rounds of decisions go on beside it. With a cold
cache it is compiled as soon as the planner runs, while engines still load their models.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

from services.planner.metrics import PlannerMetrics
from services.planner.scaling.scaler import Question, answer
from services.planner.scaling.warm_up import warm_up
from services.planner.service import PlannerService
from shared.clock import Clock

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


async def follow_demand(
    service: PlannerService, metrics: PlannerMetrics, clock: Clock, every_s: float
) -> None:
    """Until it is cancelled. An answer that fails leaves the number as it is."""
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


async def beside(function: Callable[[], _T]) -> _T:
    """What it returns, from a daemon thread: a planner that ends does not wait for it."""
    done: Future[_T] = Future()

    def run() -> None:
        done.set_running_or_notify_cancel()  # from here on it is not cancelled with its caller
        try:
            done.set_result(function())
        except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
            done.set_exception(error)

    Thread(target=run, name="desired-engines", daemon=True).start()
    return await asyncio.wrap_future(done)
