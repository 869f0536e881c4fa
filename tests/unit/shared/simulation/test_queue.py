"""One engine that serves one request at a time is a queue whose theory is known."""

import random

import numpy as np
import pytest

from shared.simulation.record import Record
from shared.simulation.request_metrics import ARRIVES, LAST, STARTED
from shared.simulation.run import Run
from tests.unit.shared.simulation.fleet import (
    AT_ONCE,
    OneAtATime,
    call,
    fleet,
    hardware,
    program,
)

_SERVICE_S = 0.01


def serve(share: float, requests: int, seed: int) -> Record:
    """Poisson arrivals that keep the engine busy for this share of its time."""
    chance, now, load = random.Random(seed), 0.0, []
    for number in range(requests):
        now += chance.expovariate(share / _SERVICE_S)
        load.append(program(f"p{number}", now, call(prompt=20, output=1)))
    return Run(tuple(load), OneAtATime(), fleet(hardware(step_s=_SERVICE_S)), AT_ONCE).record()


def test_waits_are_those_of_the_m_d_1_queue_within_2_percent() -> None:
    share = 0.6

    metrics = serve(share, 40_000, seed=3).metrics

    waited_s = (metrics[:, STARTED] - metrics[:, ARRIVES]).mean()
    assert waited_s == pytest.approx(share * _SERVICE_S / (2 * (1 - share)), rel=0.02)


@pytest.mark.parametrize("share", [0.3, 0.9, 1.5])
def test_every_wait_is_that_of_the_one_before_and_its_service_less_the_time_between(
    share: float,
) -> None:
    metrics = serve(share, 500, seed=1).metrics

    waits_s = metrics[:, STARTED] - metrics[:, ARRIVES]
    follow_s = waits_s[:-1] + _SERVICE_S - np.diff(metrics[:, ARRIVES])
    assert waits_s[1:] == pytest.approx(np.maximum(0.0, follow_s), abs=1e-9)


def test_an_engine_works_for_as_long_as_a_request_waits() -> None:
    record = serve(0.7, 500, seed=2)

    (engine,) = record.engines
    served_s = record.metrics[:, LAST] - record.metrics[:, STARTED]
    assert engine.busy_s == pytest.approx(served_s.sum())
    assert engine.steps == 500
