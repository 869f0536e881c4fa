"""Reads recorded sessions of coding agents, in which each call repeats most of the one before.

The file is CSV, gzipped or not, with a line for each call: session, call, input_tokens,
output_tokens, cached_tokens (the longest prefix shared with an earlier call of the session),
think_time_s (the pause before it) and sub_agent (1: a call of a sub-agent). The sessions are those
that callanjfox/kv-cache-tester publishes.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from shared.errors import ConfigError
from shared.workloads.calls import Call, Load, Program, StageLoad, at_rate
from shared.workloads.inference_perf import LONG_PROMPT, LONGEST_PAUSE_S, MOST_CALLS
from shared.workloads.traces import opened

_COLUMNS: Final = (
    "session",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "think_time_s",
    "sub_agent",
)
_ACCEPTANCE: Final = 0.7  # as of the applications


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPlan:
    """The load to make of the sessions.

    Prompts and the TTFT target are scaled by one factor; answers are cut at a quarter of the
    context.

    Attributes:
        context_tokens: Context length of the model.
        programs: Number of programs; sessions repeat if there are fewer.
        rate: Programs per second, with Poisson arrivals.
    """

    context_tokens: int
    programs: int
    rate: float
    seed: int
    ttft_s: float
    tpot_s: float


def read_sessions(path: Path, plan: SessionPlan) -> Load:
    """The sessions of a file as a load, without the calls of sub-agents, which run in parallel.

    Raises ConfigError for a file that cannot be read or has no sessions.
    """
    return load_of(sessions_of(path), plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCall:
    """A recorded call: tokens, and the pause before it."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    pause_s: float


Sessions = Sequence[Sequence[SessionCall]]


def sessions_of(path: Path) -> Sessions:
    """The first MOST_CALLS calls of each session, since sessions last hours and runs minutes.

    Raises ConfigError.
    """
    try:
        with opened(path) as lines:
            found = _sessions(csv.DictReader(lines))
    except (KeyError, TypeError, ValueError) as error:
        needed = ", ".join(_COLUMNS)
        raise ConfigError(f"{path} has no sessions with {needed}: {error!r}") from error
    if not found:
        raise ConfigError(f"{path} has no sessions")
    return [calls[:MOST_CALLS] for calls in found]


def scale_of(sessions: Sessions, context_tokens: int) -> float:
    """The factor, at most 1, with which nearly all prompts have at most half of the context."""
    prompts = [call.input_tokens for calls in sessions for call in calls]
    return min(1.0, context_tokens / 2 / float(np.quantile(prompts, LONG_PROMPT)))


def _sessions(rows: Iterable[Mapping[str, str]]) -> list[list[SessionCall]]:
    found: dict[str, list[SessionCall]] = {}
    for row in rows:
        call = SessionCall(
            input_tokens=int(row["input_tokens"]),
            output_tokens=int(row["output_tokens"]),
            cached_tokens=int(row["cached_tokens"]),
            pause_s=float(row["think_time_s"] or 0.0),
        )
        if row["sub_agent"] == "0" and call.input_tokens and call.output_tokens:
            found.setdefault(row["session"], []).append(call)
    return list(found.values())


def load_of(sessions: Sessions, plan: SessionPlan) -> Load:
    """Programs with Poisson arrivals and pauses of at most LONGEST_PAUSE_S."""
    scale = scale_of(sessions, plan.context_tokens)
    most = plan.context_tokens // 4
    draw = np.random.default_rng(plan.seed)
    arrives_s = np.cumsum(draw.exponential(1 / plan.rate, plan.programs)).tolist()
    order = np.concatenate(
        [draw.permutation(len(sessions)) for _ in range(-(-plan.programs // len(sessions)))]
    ).tolist()
    load = tuple(
        Program(
            program_id=f"agent-{number}",
            application="agents",
            arrives_s=at_s,
            calls=tuple(_calls(sessions[place], plan, scale, most, draw)),
        )
        for number, (at_s, place) in enumerate(zip(arrives_s, order, strict=False))
    )
    return at_rate(load, plan.rate)


def _calls(
    session: Sequence[SessionCall],
    plan: SessionPlan,
    scale: float,
    most: int,
    draw: np.random.Generator,
) -> Iterator[Call]:
    """The calls of a session; the first one finds nothing cached."""
    for number, one in enumerate(session):
        prompt, output = max(1, round(one.input_tokens * scale)), min(most, one.output_tokens)
        call = Call(
            class_name="agent",
            prompt_tokens=prompt,
            prefix_tokens=min(prompt - 1, int(one.cached_tokens * scale)) if number else 0,
            stages=(StageLoad(name="answer", output_tokens=output, tpot_s=plan.tpot_s),),
            max_output_tokens=most,
            ttft_s=plan.ttft_s * scale,
            acceptance=float(draw.beta(20 * _ACCEPTANCE, 20 * (1 - _ACCEPTANCE))),
        )
        yield replace(call, after_s=min(LONGEST_PAUSE_S, one.pause_s)) if number else call
