"""Reads the gateway's options and serves the app that `app` builds."""

import os
import signal
import sys
from collections.abc import Sequence

import uvloop

from services.gateway.config import GatewayOptions
from services.gateway.listener import bind
from shared.entry import exit_status
from shared.options import load
from shared.telemetry.logging import set_up_logging


def main(argv: Sequence[str]) -> int:
    """Serves until SIGTERM or SIGINT. Raises ConfigError."""
    options = load(
        GatewayOptions,
        section="gateway",
        argv=argv,
        environ=os.environ,
        prog="slos-serve gateway",
        check=GatewayOptions.check,
    )
    set_up_logging("gateway", os.environ)
    with bind(options.host, options.port, options.unread_limit_s) as listener:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", options.vllm_log_level)
        signal.signal(signal.SIGTERM, _end_start)
        # vLLM takes seconds to import and reads its log level then; --help must not wait for it
        from services.gateway.app import run, start_grammar_server

        with start_grammar_server(options, listener) as grammars:
            status: int = uvloop.run(run(options, listener, grammars))
        return status


def _end_start(number: int, frame: object) -> None:
    """Ends the start on SIGTERM while vLLM loads and no event loop handles signals."""
    del number, frame
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program="slos-serve gateway"))
