"""This machine's engine as a simulated one: profiled in a process of its own, with the settings
that all measured systems have.
"""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path

from services.node.plan import Part
from shared.batch_time import BatchTimeModel, StepTable, from_plain
from shared.errors import DeadlinePassed, SlosError
from shared.hardware import Hardware
from shared.hardware.own import from_profile

_SHOWN = 600  # characters of what went wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnEngine:
    """`table` is what a planner knows of it when it starts."""

    hardware: Hardware
    table: StepTable


async def profile(part: Part, limit_s: float) -> Path:
    """The file with what the engine found of itself. Raises DeadlinePassed and SlosError."""
    part.log.parent.mkdir(parents=True, exist_ok=True)
    found = part.log.with_suffix(".json")
    with found.open("wb") as out, part.log.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *part.command, env={**os.environ, **part.environ}, stdout=out, stderr=log
        )
        try:
            async with asyncio.timeout(limit_s):
                status = await process.wait()
        except TimeoutError as error:
            raise DeadlinePassed(
                f"No profile within {limit_s:g} s; give more time with --start-limit-s."
            ) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if status:
        words = part.log.read_text(encoding="utf-8", errors="replace")[-_SHOWN:]
        raise SlosError(f"The engine could not be profiled. The end of {part.log}:\n{words}")
    return found


def read(path: Path, *, link_bytes_per_s: float, link_latency_s: float) -> OwnEngine:
    """Raises ConfigError where the file is no profile."""
    hardware = from_profile(path, link_bytes_per_s=link_bytes_per_s, link_latency_s=link_latency_s)
    fit = from_plain(json.loads(path.read_text(encoding="utf-8"))["fit"])
    table = BatchTimeModel(fit).table
    assert table is not None, "a model that starts from a fit knows something"
    return OwnEngine(hardware=hardware, table=table)
