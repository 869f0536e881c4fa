"""Starts an engine host in the role that its service names. Loads vLLM last."""

import os
from collections.abc import Sequence

from shared.engine.config import EngineOptions
from shared.engine.environment import set_environment
from shared.engines import Role
from shared.options import load
from shared.telemetry.logging import set_up_logging


def start(role: Role, argv: Sequence[str]) -> int:
    """Serves until it is told to stop; the exit status. Raises ConfigError."""
    name = role.value
    options = load(
        EngineOptions, section=name, argv=argv, environ=os.environ, prog=f"slos-serve {name}"
    )
    set_up_logging(name, os.environ)
    options = options.settled()
    cores = set_environment(options, os.environ)
    # vLLM takes seconds to import, which --help must not, and reads the environment at that moment
    from shared.engine.host import run

    return run(role, options, cores)
