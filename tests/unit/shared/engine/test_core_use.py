import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.engine.core_use import CoreUse


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="no schedstat here")
def test_a_process_is_busy_while_it_computes_and_idle_while_it_stands_still() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            use, spinning = (
                CoreUse(pids=[child.pid], computes=computes) for computes in (True, False)
            )
            until_busy(use)
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(0.2)
            use.is_busy()
            spinning.is_busy()
            time.sleep(0.2)

            assert not use.is_busy()
            assert not spinning.is_busy()
            os.kill(child.pid, signal.SIGCONT)
            until_busy(use)
        finally:
            child.kill()


def until_busy(use: CoreUse) -> None:
    use.is_busy()
    for _ in range(200):
        time.sleep(0.05)
        if use.is_busy():
            return
    raise AssertionError("a process that spins was never seen to be busy")


def test_a_process_that_is_gone_is_idle() -> None:
    use = CoreUse(pids=[2**22 + 1], computes=True)

    assert not use.is_busy()
