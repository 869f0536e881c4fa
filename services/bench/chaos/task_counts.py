"""Reads the number of asyncio tasks of a fleet's processes from their metrics pages."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import aiohttp

from services.bench.http_client import http_session, read_metric
from shared.telemetry.task_count import TASKS

_ANSWER_LIMIT_S: Final = 10.0


async def tasks_on(pages: Mapping[str, str]) -> dict[str, int]:
    """Task counts by part; `pages` are URLs. Parts that do not answer are left out."""
    found: dict[str, int] = {}
    async with http_session(_ANSWER_LIMIT_S) as session:
        for name, url in pages.items():
            with suppress(aiohttp.ClientError, TimeoutError):
                count = await read_metric(session, url, TASKS)
                if count is not None:
                    found[name] = round(count)
    return found
