"""Starts an engine host in the role that its service names. Loads vLLM last."""

import os
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from shared.engine.config import EngineOptions
from shared.engine.core_list import core_numbers
from shared.engine.environment import set_environment
from shared.engine.speculation import check_draft_model
from shared.engine.vllm_settings import check_settings
from shared.engines import Role
from shared.garbage import frozen_heap
from shared.options import load
from shared.rpc.event_engine import without_event_engine
from shared.telemetry.logging import set_up_logging


def start(role: Role, argv: Sequence[str]) -> NoReturn:
    """Serves until it is told to stop, and ends the process. Raises ConfigError."""
    name = role.value
    options = load(
        EngineOptions,
        section=name,
        argv=argv,
        environ=os.environ,
        prog=f"slos-serve {name}",
        check=partial(check, role=role),
    )
    set_up_logging(name, os.environ)
    without_event_engine(os.environ)
    options = options.settled()
    cores = set_environment(options, os.environ)
    # vLLM takes seconds to import, which --help must not, and reads the environment at that moment
    from shared.engine.host import run

    with frozen_heap():
        run(role, options, cores)


def check(options: EngineOptions, *, role: Role) -> None:
    """Raises ConfigError for what an engine cannot have, as far as that shows without vLLM."""
    options.settled()
    if options.cores:
        core_numbers(options.cores)
    if options.speculation_tokens:
        check_draft_model(options.speculation, options.speculation_model)
    check_settings(options.vllm, role=role, known=options.vllm.keys())
