"""Asks the grammar server whether engines may compile a grammar."""

import asyncio
import hashlib
import os
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from services.gateway.grammar_limits import GrammarLimits
from services.gateway.grammar_server import GrammarServer, framed
from shared.bounded import remember
from shared.errors import InvalidRequest, Overloaded

PARAM: Final = "structured_outputs"
_AT_ONCE: Final = max(1, min(4, (os.cpu_count() or 1) // 2))
_MOST_WAITING: Final = 64
_WAIT_LIMIT_S: Final = 30.0
_REMEMBERED: Final = 256
_LONGEST_ERROR: Final = 500


@dataclass(slots=True)
class GrammarChecks:
    """Asks once for each grammar and caches the last results.

    A compilation is cancelled when no request waits for it any more.
    """

    server: GrammarServer
    limits: GrammarLimits
    size_limit_bytes: int
    _running: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    _known: OrderedDict[bytes, dict[str, Any]] = field(default_factory=OrderedDict)
    _asked: dict[bytes, "_Check"] = field(default_factory=dict)

    async def check(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields to send to an engine. Raises InvalidRequest and Overloaded."""
        try:
            asked = orjson.dumps(fields)
        except TypeError as error:
            raise InvalidRequest(f"{PARAM}: {error}", param=PARAM) from error
        if len(asked) > self.size_limit_bytes:
            raise InvalidRequest(
                f"{PARAM}: read {len(asked)} bytes, allowed are {self.size_limit_bytes}",
                param=PARAM,
            )
        key = hashlib.sha256(asked).digest()
        answer = self._known.get(key)
        if answer is None:
            answer = await self._wait(key, asked)
            remember(self._known, key, answer, _REMEMBERED)
        if "error" in answer:
            raise InvalidRequest(f"{PARAM}: {answer['error'][:_LONGEST_ERROR]}", param=PARAM)
        params: dict[str, Any] = answer["params"]
        return params

    async def _wait(self, key: bytes, asked: bytes) -> dict[str, Any]:
        """Shares one compilation among the requests that wait; the last to leave cancels it."""
        if key not in self._asked:
            if len(self._asked) >= _MOST_WAITING:
                raise Overloaded("Too many grammars of structured output wait to be compiled.")
            self._asked[key] = _Check(task=asyncio.create_task(self._ask(asked)))
        check = self._asked[key]
        check.waiting += 1
        try:
            return await asyncio.shield(check.task)
        finally:
            check.waiting -= 1
            if not check.waiting:
                check.task.cancel()
                self._asked.pop(key, None)

    async def _ask(self, asked: bytes) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_WAIT_LIMIT_S), self._running:
                answer = await self._exchange(asked)
        except TimeoutError as error:
            raise Overloaded("No grammar of structured output can be compiled now.") from error
        except OSError as error:
            raise Overloaded("This gateway can compile no grammars; restart it.") from error
        if not answer:
            limit_mib = self.limits.memory_bytes >> 20
            return {
                "error": "this takes more to compile than this gateway allows: "
                f"{self.limits.time_s:g} s of a processor, {limit_mib} MiB"
            }
        parsed: dict[str, Any] = orjson.loads(answer)
        return parsed

    async def _exchange(self, asked: bytes) -> bytes:
        """The answer of the process; empty if the kernel ended it."""
        reader, writer = await asyncio.open_connection(sock=self.server.connect())
        try:
            writer.write(framed(asked))
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


@dataclass(slots=True)
class _Check:
    task: "asyncio.Task[dict[str, Any]]"
    waiting: int = 0
