"""Starts an engine host in the prefill role."""

import sys
from collections.abc import Sequence
from typing import NoReturn

from shared.engine.start import start
from shared.engines import Role
from shared.entry import exit_status


def main(argv: Sequence[str]) -> NoReturn:
    start(Role.PREFILL, argv)


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program="slos-serve prefill"))
