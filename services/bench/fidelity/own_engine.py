"""Turns this machine's engine into a simulated one.

A separate process profiles it, with the settings of all measured systems.
"""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.node.plan import Part
from shared.batch_time import BatchTimeModel, StepTable, from_plain, to_plain
from shared.batch_time.profile_fit import MeasuredStep, fit_of
from shared.errors import DeadlinePassed, SlosError
from shared.hardware import Hardware
from shared.hardware.own import from_profile

_SHOWN = 600  # characters of what went wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnEngine:
    """`table` has the step times at a planner's start; `profile` is the fit that it updates."""

    hardware: Hardware
    table: StepTable
    profile: Mapping[str, Any]


async def profile(part: Part, limit_s: float, *, times: int) -> Path:
    """Profiles the engine `times` times into one file, since a machine's speed changes over time.

    Raises DeadlinePassed and SlosError.
    """
    part.log.parent.mkdir(parents=True, exist_ok=True)
    alone = [await _profile(part, limit_s, number) for number in range(times)]
    together = part.log.with_suffix(".json")
    together.write_text(json.dumps(_together(alone)), encoding="utf-8")
    return together


def _together(profiles: Sequence[Path]) -> Mapping[str, Any]:
    """One profile, fitted to the steps of all."""
    plains = [json.loads(path.read_text(encoding="utf-8")) for path in profiles]
    steps = [one for plain in plains for one in plain["measured"]]
    fit = fit_of([MeasuredStep.of_plain(one) for one in steps])
    assert fit is not None, "a profile of too few steps is an error of its own"
    return {**plains[0], "fit": to_plain(fit), "measured": steps}


async def _profile(part: Part, limit_s: float, number: int) -> Path:
    found = part.log.with_suffix(f".{number}.json")
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
    """The engine of a profile. Raises ConfigError if the file is none."""
    hardware = from_profile(path, link_bytes_per_s=link_bytes_per_s, link_latency_s=link_latency_s)
    profile = json.loads(path.read_text(encoding="utf-8"))["fit"]
    table = BatchTimeModel(from_plain(profile)).table
    assert table is not None, "a model that starts from a fit knows something"
    return OwnEngine(hardware=hardware, table=table, profile=profile)
