"""Starts an engine host in the prefill role."""

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
        EngineOptions, section="prefill", argv=argv, environ=os.environ, prog="slos-serve prefill"
    )
    set_up_logging("prefill", os.environ)
    options = options.with_free_ports()
    cores = set_environment(options, os.environ)
    # vLLM takes seconds to import, which --help must not, and reads the environment at that moment
    from shared.engine.host import run

    return run(Role.PREFILL, options, cores)


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program="slos-serve prefill"))
