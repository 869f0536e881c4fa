"""How a process of ours ends: with its exit status, or with one line on stderr."""

import sys
from collections.abc import Callable, Sequence

from shared.errors import SlosError

FAILED = 2
INTERRUPTED = 130  # what shells expect of a program that Ctrl-C ended


def exit_status(main: Callable[[Sequence[str]], int], argv: Sequence[str], *, program: str) -> int:
    """Runs `main`. An error that we know becomes one line and status 2, Ctrl-C status 130."""
    try:
        return main(argv)
    except SlosError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
