"""Converts a request to its row in the lives of a run, and to its rows in engines."""

import math

from shared.batch_time.table import FloatArray
from shared.requests import Pacing
from shared.scheduling.rows import new_row
from shared.simulation.lives import (
    ACCEPTANCE,
    ARRIVES,
    BY_DEADLINES,
    CHANGES_AT,
    LAST,
    LATER_PACE,
    OUTPUT,
    PACE,
    TOKENS,
    TTFT,
    Lives,
    paces_s,
)
from shared.simulation.system import Route, SimRequest


def want(lives: Lives, request: SimRequest) -> None:
    """Writes the request's targets and lengths into its life."""
    call, life = request.call, lives[request.life]
    life[ARRIVES], life[TTFT] = request.arrives_s, request.ttft_s
    life[OUTPUT], life[ACCEPTANCE] = call.output_tokens, call.acceptance
    life[BY_DEADLINES] = call.pacing is Pacing.DEADLINES
    life[PACE] = call.stages[0].tpot_s
    life[LATER_PACE] = call.stages[-1].tpot_s
    life[CHANGES_AT] = call.stages[0].output_tokens


def first_row(
    request: SimRequest, route: Route, lives: Lives, *, computed: int, now: float
) -> FloatArray:
    """The row in the engine that computes its prompt, with `computed` tokens cached."""
    split = route.prefill is not None
    pace_s = route.pace_share * _pace_s(lives, request.life)
    due_s = request.arrives_s + request.ttft_s - route.delivery_s
    if request.produced:
        due_s = _next_due_s(request, route, lives)
    return new_row(
        key=route.key,
        tokens=request.prompt_tokens,
        computed=computed,
        produced=request.produced,
        left=1 if split else request.call.max_output_tokens - request.produced,
        due_s=due_s,
        tpot_s=math.inf if split else pace_s,
        grace_s=math.inf if route.by_deadlines else route.grace_s,
        kind=route.kind,
        available_s=now,
    )


def second_row(
    request: SimRequest, route: Route, lives: Lives, *, computed: int, available_s: float
) -> FloatArray:
    """The row in the engine that decodes after another's prefill; KV arrives at `available_s`."""
    return new_row(
        key=route.key,
        tokens=request.prompt_tokens + 1,
        computed=computed,
        produced=request.produced + 1,
        left=request.call.max_output_tokens - request.produced - 1,
        due_s=_next_due_s(request, route, lives),
        tpot_s=route.pace_share * _pace_s(lives, request.life),
        grace_s=math.inf if route.by_deadlines else 0.0,
        kind=route.kind,
        available_s=available_s,
    )


def _next_due_s(request: SimRequest, route: Route, lives: Lives) -> float:
    """When the next token of a request with some tokens is due."""
    life = lives[request.life]
    if route.by_deadlines:
        first_due_s = request.arrives_s + request.ttft_s - route.delivery_s
        return first_due_s + float(paces_s(life, life[TOKENS]))
    grace_s = 0.0 if request.produced else route.grace_s
    return float(life[LAST]) + grace_s + route.pace_share * _pace_s(lives, request.life)


def _pace_s(lives: Lives, life: int) -> float:
    row = lives[life]
    return float(row[PACE] if row[TOKENS] < row[CHANGES_AT] else row[LATER_PACE])
