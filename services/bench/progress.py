"""What commands say while they work."""

import sys


def say(line: str) -> None:
    """Prints to stderr; stdout has the result alone."""
    print(line, file=sys.stderr, flush=True)
