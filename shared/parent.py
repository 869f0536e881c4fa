"""Ends a process with its parent, so that a killed parent leaves no work behind. Linux only."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent_pid: int) -> None:
    """Makes the kernel kill this process when its parent dies; no effect outside Linux.

    If `parent_pid` has ended already, this process exits at once. In a process that is not a direct
    child of `parent_pid`, only that check counts.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        os.kill(parent_pid, 0)
    except ProcessLookupError:
        os._exit(1)
