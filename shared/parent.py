"""Ending a process with its parent, so that a killed one leaves no work running behind.

Linux only; elsewhere it does nothing.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent_pid: int) -> None:
    """Has the kernel kill this process when its parent dies; ends it at once when the parent
    `parent_pid` is already gone.

    Holds only for a direct child: for a process further down it just checks that `parent_pid`
    is alive.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        os.kill(parent_pid, 0)
    except ProcessLookupError:
        os._exit(1)
