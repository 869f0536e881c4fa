"""Reads the gateway's options and serves the app that `app` builds."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import uvloop

from services.gateway.config import GatewayOptions
from services.gateway.listener import bind
from services.gateway.usage import UsageBook
from services.gateway.workers import run_workers
from shared.entry import end_at_once, exit_status
from shared.garbage import frozen_heap
from shared.options import load
from shared.rpc.event_engine import without_event_engine
from shared.telemetry.logging import set_up_logging


def main(argv: Sequence[str]) -> NoReturn:
    """Serves until SIGTERM or SIGINT, and ends the process. Raises ConfigError."""
    options = load(
        GatewayOptions,
        section="gateway",
        argv=argv,
        environ=os.environ,
        prog="slos-serve gateway",
        check=GatewayOptions.check,
    )
    set_up_logging("gateway", os.environ)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", options.vllm_log_level)
    without_event_engine(os.environ)
    signal.signal(signal.SIGTERM, _end_start)
    if options.workers > 1:
        end_at_once(run_workers(options, _serve))
    with bind(options.host, options.port, options.unread_limit_s) as listener:
        status = _serve(options, listener, lambda: None)
    end_at_once(status)


def _serve(
    options: GatewayOptions,
    listener: socket.socket,
    serving: Callable[[], None],
    usage: UsageBook | None = None,
) -> int:
    """Serves in this process; calls `serving` when it begins to. `usage` is that of all workers;
    None: there are no others. Raises ConfigError.
    """
    # vLLM takes seconds to import and reads its log level then; --help must not wait for it
    from services.gateway.app import run, start_grammar_server

    with frozen_heap(), start_grammar_server(options, listener) as grammars:
        status: int = uvloop.run(run(options, listener, grammars, serving, usage))
    return status


def _end_start(number: int, frame: object) -> None:
    """Ends the start on SIGTERM while vLLM loads and no event loop handles signals."""
    del number, frame
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program="slos-serve gateway"))
