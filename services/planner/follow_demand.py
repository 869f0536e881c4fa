"""Asks every few seconds how many engines the last requests needed.

The answer is compiled code in a thread; rounds of decisions go on beside it.
"""

import asyncio
import logging

from services.planner.metrics import PlannerMetrics
from services.planner.scaling.scaler import answer
from services.planner.service import PlannerService
from shared.clock import Clock

_LOG = logging.getLogger(__name__)


async def follow_demand(
    service: PlannerService, metrics: PlannerMetrics, clock: Clock, every_s: float
) -> None:
    """Until it is cancelled; a running answer is then waited for by the thread's pool."""
    while True:
        await clock.sleep(every_s)
        question = service.scaler.question(service.state, clock.now())
        if question is None:
            continue
        began_s = clock.now()
        found = await asyncio.to_thread(answer, question)
        now = clock.now()
        metrics.scaling_took(now - began_s)
        before = service.scaler.size
        service.scaler.take(question, found, now)
        size = service.scaler.size
        if size is not None:
            metrics.desires(size)
            if size != before:
                _LOG.info("desired engines: %s (%s before)", size, before)
