"""The probe of a machine's speed works while it is asked to, and no longer."""

import threading
import time

from services.bench.reality.speed import probing

_SECONDS = 2.0  # some turns of the probe's


def test_the_work_is_timed_while_the_context_lives_and_its_thread_ends_with_it() -> None:
    with probing() as probe:
        time.sleep(_SECONDS)

    assert probe.work_s > 0
    assert all(thread.name != "speed" for thread in threading.enumerate())
