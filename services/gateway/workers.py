"""Serves one address by several processes that share it through SO_REUSEPORT."""

import os
from collections.abc import Callable
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Final

import setproctitle

from services.gateway.config import GatewayOptions
from services.gateway.listener import bind, bind_shared
from services.gateway.shared_usage import shared_usage
from services.gateway.supervisor import Supervisor
from services.gateway.tenants import MOST_ROWS
from services.gateway.worker_rules import RestartBudget
from shared.clock import MonotonicClock
from shared.entry import exit_status
from shared.garbage import frozen_heap
from shared.telemetry.logging import set_up_logging

_METRICS_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it when imported
_STOP_MARGIN_S: Final = 15.0  # beyond the drain: uvicorn's end and that of all connections
_RESTARTS_PER_WORKER, _RESTART_WINDOW_S = 3, 60.0


def run_workers(options: GatewayOptions, serve: Callable[..., int]) -> int:
    """Serves until SIGTERM or SIGINT, then drains all workers. Raises ConfigError.

    `serve` takes the options, a socket to listen on, what to call once it serves, and the tenants'
    usage that all workers share.
    """
    with bind(options.host, options.port, options.unread_limit_s) as alone:
        port = alone.getsockname()[1]  # no other server has it, not even one that would share it
    options = replace(options, port=port)
    with (
        bind_shared(options.host, port, options.unread_limit_s),  # keeps the port; never listens
        TemporaryDirectory(prefix="slos-gateway-metrics-") as folder,
        shared_usage(MOST_ROWS, options.workers) as usage,
    ):
        os.environ[_METRICS_FOLDER] = folder
        # Imported once, before the first fork: workers share its memory and start in a moment.
        from prometheus_client.multiprocess import mark_process_dead

        import services.gateway.app  # noqa: F401 - for its modules

        def work(number: int, serving: Callable[[], None]) -> int:
            setproctitle.setproctitle(f"slos-serve gateway worker {number}")
            set_up_logging(f"gateway-{number}", os.environ)
            usage.begin(number)
            with bind_shared(options.host, port, options.unread_limit_s) as listener:
                return exit_status(
                    lambda _: serve(options, listener, serving, usage),
                    (),
                    program="slos-serve gateway",
                )

        supervisor = Supervisor(
            count=options.workers,
            work=work,
            on_ended=lambda pid: mark_process_dead(pid, folder),  # type: ignore[no-untyped-call] # untyped
            clock=MonotonicClock(),
            stop_limit_s=options.drain_limit_s + _STOP_MARGIN_S,
            budget=RestartBudget(
                restarts=_RESTARTS_PER_WORKER * options.workers, window_s=_RESTART_WINDOW_S
            ),
        )
        with frozen_heap():
            return supervisor.run()
