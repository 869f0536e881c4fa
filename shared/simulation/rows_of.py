"""Converts a request to its row in the metrics of a run, and to its rows in engines."""

import math

from shared.batch_time.table import FloatArray
from shared.requests import Pacing
from shared.scheduling.rows import new_row
from shared.simulation.request_metrics import (
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
    RequestMetrics,
    paces_s,
)
from shared.simulation.system import Route, SimRequest


def write_targets(metrics: RequestMetrics, request: SimRequest) -> None:
    """Writes the request's targets and lengths into its metrics."""
    call, row = request.call, metrics[request.index]
    row[ARRIVES], row[TTFT] = request.arrives_s, request.ttft_s
    row[OUTPUT], row[ACCEPTANCE] = call.output_tokens, call.acceptance
    row[BY_DEADLINES] = call.pacing is Pacing.DEADLINES
    row[PACE] = call.stages[0].tpot_s
    row[LATER_PACE] = call.stages[-1].tpot_s
    row[CHANGES_AT] = call.stages[0].output_tokens


def first_row(
    request: SimRequest, route: Route, metrics: RequestMetrics, *, computed: int, now: float
) -> FloatArray:
    """The row in the engine that computes its prompt, with `computed` tokens cached."""
    split = route.prefill is not None
    pace_s = route.pace_share * _pace_s(metrics, request.index)
    due_s = request.arrives_s + request.ttft_s - route.delivery_s
    if request.produced:
        due_s = _next_due_s(request, route, metrics)
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
    request: SimRequest, route: Route, metrics: RequestMetrics, *, computed: int, available_s: float
) -> FloatArray:
    """The row in the engine that decodes after another's prefill; KV arrives at `available_s`."""
    return new_row(
        key=route.key,
        tokens=request.prompt_tokens + 1,
        computed=computed,
        produced=request.produced + 1,
        left=request.call.max_output_tokens - request.produced - 1,
        due_s=_next_due_s(request, route, metrics),
        tpot_s=route.pace_share * _pace_s(metrics, request.index),
        grace_s=math.inf if route.by_deadlines else 0.0,
        kind=route.kind,
        available_s=available_s,
    )


def _next_due_s(request: SimRequest, route: Route, metrics: RequestMetrics) -> float:
    """When the next token of a request with some tokens is due."""
    row = metrics[request.index]
    if route.by_deadlines:
        first_due_s = request.arrives_s + request.ttft_s - route.delivery_s
        return first_due_s + float(paces_s(row, row[TOKENS]))
    grace_s = 0.0 if request.produced else route.grace_s
    return float(row[LAST]) + grace_s + route.pace_share * _pace_s(metrics, request.index)


def _pace_s(metrics: RequestMetrics, index: int) -> float:
    row = metrics[index]
    return float(row[PACE] if row[TOKENS] < row[CHANGES_AT] else row[LATER_PACE])
