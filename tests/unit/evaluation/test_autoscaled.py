"""A simulated fleet that follows the desired engines serves a load that doubles and halves, without
going back and forth and without losing a request.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from services.evaluation.autoscaled import AutoscaledRun, Moment, Orchestrator
from services.evaluation.planned import Planned, Settings
from services.planner.scaling.fleet_size import FleetSize
from services.planner.scaling.numbers import ScalingNumbers
from shared.simulation.judge import Rule, kept
from shared.simulation.record import Conditions, Record
from shared.simulation.request_metrics import ADMISSION, ARRIVES, OUTPUT, REFUSED, TOKENS
from shared.workloads.calls import Load, Program
from tests.unit.shared.simulation.fleet import call, fleet, hardware, program

# With a cold cache the first of these compiles the replay.
MOST = 5  # engines of each role
PHASES = ((40.0, 8.0), (90.0, 16.0), (170.0, 8.0))  # until when, requests per second
RISEN = 2  # phases until the load is halved again
SETTLED = (65.0, 90.0)  # the load has doubled for a window and a start
NUMBERS = ScalingNumbers(window_s=15.0, hold_s=45.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What all requests of a load are like, and the fleet that it begins with."""

    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    start: FleetSize


MIXED = Shape(prompt_tokens=200, output_tokens=60, ttft_s=0.5, start=FleetSize(prefill=0, decode=1))
LONG_PROMPTS = Shape(
    prompt_tokens=1800, output_tokens=10, ttft_s=0.6, start=FleetSize(prefill=1, decode=2)
)
LONG_ANSWERS = Shape(
    prompt_tokens=50, output_tokens=100, ttft_s=0.5, start=FleetSize(prefill=1, decode=1)
)


def phased(shape: Shape, phases: int) -> Load:
    chance, now, load = random.Random(1), 0.0, list[Program]()
    for until_s, rate in PHASES[:phases]:
        while now < until_s:
            prompt = round(shape.prompt_tokens * chance.uniform(0.5, 1.5))
            output = round(shape.output_tokens * chance.uniform(0.5, 1.5))
            one = call(prompt, output, ttft_s=shape.ttft_s)
            load.append(program(f"r{len(load)}", now, one))
            now += chance.expovariate(rate)
    return tuple(load)


@cache
def run(
    shape: Shape, *, follows: bool = True, phases: int = len(PHASES)
) -> tuple[Record, Sequence[Moment]]:
    """Engines take 10 ms for a step and may have 8 requests in it."""
    machine = hardware(max_running_requests=8, link_bytes_per_s=1e9)
    engines = fleet(machine, MOST, MOST if shape.start.prefill else 0)
    first = [*engines[: shape.start.decode], *engines[MOST : MOST + shape.start.prefill]]
    one = AutoscaledRun(
        phased(shape, phases),
        engines,
        shape.start,
        NUMBERS,
        Orchestrator(every_s=2.0, start_s=8.0, follows=follows),
        Conditions(),
        Planned(Settings(), first),
    )
    return one.record(), one.moments


def attained(record: Record, from_s: float, until_s: float) -> float:
    arrives = record.metrics[:, ARRIVES]
    return float(kept(record.metrics, Rule.ASKED)[(arrives >= from_s) & (arrives < until_s)].mean())


def test_the_fleet_that_follows_keeps_what_the_first_one_misses() -> None:
    following, fixed = run(MIXED)[0], run(MIXED, follows=False, phases=RISEN)[0]

    assert attained(following, *SETTLED) > 0.95
    assert attained(fixed, *SETTLED) < 0.9


def test_a_load_that_doubles_and_halves_moves_the_number_up_once_and_down_once() -> None:
    """More than one step up or down is no oscillation; up again after down would be."""
    moments = run(MIXED)[1]

    engines = [one.desired.engines for one in moments]
    signs = [after > before for before, after in pairwise(engines) if after != before]
    assert signs == sorted(signs, reverse=True)
    assert max(engines) > engines[0]
    assert engines[-1] < max(engines)


def test_no_request_is_lost_or_refused_by_scaling() -> None:
    metrics = run(MIXED)[0].metrics

    assert not (metrics[:, ADMISSION] == REFUSED).any()
    assert np.array_equal(metrics[:, TOKENS], metrics[:, OUTPUT])


def test_engines_that_start_are_not_asked_for_again() -> None:
    """The number does not rise while what it asked for is on its way and the load is the same."""
    moments = run(MIXED)[1]

    for before, after in pairwise(moments):
        in_phase = PHASES[0][0] + NUMBERS.window_s < before.at_s < PHASES[1][0] - 2
        if in_phase and before.starting.engines:
            assert after.desired.engines <= before.desired.engines + 1


@pytest.mark.parametrize(
    ("shape", "role"),
    [(LONG_PROMPTS, "prefill"), (LONG_ANSWERS, "decode")],
    ids=["long prompts", "long answers"],
)
def test_where_one_role_is_short_that_one_grows(shape: Shape, role: str) -> None:
    record, moments = run(shape, phases=RISEN)

    most = {one: max(getattr(m.desired, one) for m in moments) for one in ("prefill", "decode")}
    other = "decode" if role == "prefill" else "prefill"
    assert most[role] > getattr(shape.start, role)
    assert most[other] <= getattr(shape.start, other)
    assert attained(record, *SETTLED) > 0.9
