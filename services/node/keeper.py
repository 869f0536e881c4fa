"""A small process that outlives its parent by a moment, to kill what the parent leaves behind.

Even a parent that was killed outright leaves no process: our input ends with it. Every line of the
input is `+ID` or `-ID`: a process group to kill in that case, or one that is gone.
"""

import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress


def left_over(lines: Iterable[str]) -> set[int]:
    """The groups that are still there when the lines end."""
    groups: set[int] = set()
    for line in lines:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    return groups


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # our parent's end is our only cue
    for group in left_over(sys.stdin):
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
