"""Worker processes of the evaluation."""

import os
import signal
import subprocess
import sys
import time

from tests.processes import is_alive

_PARENT = """
from services.evaluation.workers import workers
from tests.unit.evaluation.test_workers import wait_for_ever
from tests.unit.evaluation.builders import make_task
with workers(1, wait_for_ever) as pool:
    print(*[one.pid for one in pool._pool._pool], flush=True)
    pool.start(make_task())
    pool.next()
"""


def wait_for_ever(_: object) -> None:
    print("at its task", flush=True)
    time.sleep(600)


def test_workers_do_not_outlive_a_parent_that_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        (worker,) = map(int, parent.stdout.readline().split())
        assert parent.stdout.readline() == b"at its task\n"
        parent.send_signal(signal.SIGKILL)
        parent.wait(60)
    for _ in range(600):
        if not is_alive(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the worker went on alone")
