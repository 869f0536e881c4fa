"""Starts an engine host in the decode role."""

import os
import sys
from collections.abc import Sequence

from shared.engine.config import EngineOptions
from shared.engine.environment import set_environment
from shared.engines import Role
from shared.entry import exit_status
from shared.options import load
from shared.telemetry.logging import set_up_logging


def main(argv: Sequence[str]) -> int:
    options = load(
        EngineOptions, section="decode", argv=argv, environ=os.environ, prog="slos-serve decode"
    )
    set_up_logging("decode", os.environ)
    options = options.with_free_ports()
    cores = set_environment(options, os.environ)
    # vLLM takes seconds to import, which --help must not, and reads the environment at that moment
    from shared.engine.host import run

    return run(Role.DECODE, options, cores)


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program="slos-serve decode"))
