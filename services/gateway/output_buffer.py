"""Buffers engine outputs until vLLM's output handler takes them. One reader only."""

import asyncio

from vllm.v1.engine import EngineCoreOutputs


class OutputBuffer:
    """Joins waiting outputs: handling ten at once costs far less than ten times one."""

    def __init__(self) -> None:
        self._waiting: list[EngineCoreOutputs] = []
        self._filled = asyncio.Event()

    def put(self, outputs: EngineCoreOutputs) -> None:
        self._waiting.append(outputs)
        self._filled.set()

    async def get(self) -> EngineCoreOutputs:
        """Waits for outputs; joins the oldest with all that follow it with the same weights."""
        await self._filled.wait()
        first, *rest = self._waiting
        joined = 0
        for following in rest:
            if following.weight_version != first.weight_version:
                break
            first.outputs.extend(following.outputs)
            joined += 1
        self._waiting = rest[joined:]
        if not self._waiting:
            self._filled.clear()
        return first
