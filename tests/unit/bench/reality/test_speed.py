"""The probe of a machine's speed works while it is asked to, and no longer."""

import math
import threading
import time

from services.bench.reality.speed import Probe, probing

_LOOKS, _PAUSE_S = 400, 0.05  # 20 s at most


def test_a_probe_that_has_not_run_knows_nothing() -> None:
    assert math.isnan(Probe().work_s)


def test_the_work_is_timed_while_the_context_lives_and_its_thread_ends_with_it() -> None:
    with probing() as probe:
        for _ in range(_LOOKS):
            if not math.isnan(probe.work_s):
                break
            time.sleep(_PAUSE_S)

    assert probe.work_s > 0
    assert all(thread.name != "speed" for thread in threading.enumerate())
