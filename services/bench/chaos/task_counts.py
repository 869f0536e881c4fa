"""Reads from metrics pages how many asyncio tasks the parts of a fleet have."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from services.bench.http_client import http_session
from shared.telemetry.task_count import TASKS

_ANSWER_LIMIT_S: Final = 10.0


async def tasks_on(pages: Mapping[str, str]) -> dict[str, int]:
    """By part, from the URL of its page; without those that do not answer."""
    found: dict[str, int] = {}
    async with http_session(_ANSWER_LIMIT_S) as session:
        for name, url in pages.items():
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(url) as answer:
                    count = _tasks_in(await answer.text())
                if count is not None:
                    found[name] = count
    return found


def _tasks_in(page: str) -> int | None:
    for family in text_string_to_metric_families(page):
        if family.name == TASKS:
            return round(family.samples[0].value)
    return None
