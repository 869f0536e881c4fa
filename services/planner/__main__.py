"""`slos-serve planner`: starts the planner, or asks a running one for an explanation."""

import asyncio
import os
import sys
from collections.abc import Sequence

from services.planner.config import PlannerOptions
from shared.entry import exit_status
from shared.options import load
from shared.rpc.event_engine import without_event_engine
from shared.rpc.identity import identity_from
from shared.telemetry.logging import set_up_logging


def main(argv: Sequence[str]) -> int:
    """Serves until it is told to stop, or prints an explanation. Raises ConfigError."""
    options = load(
        PlannerOptions,
        section="planner",
        argv=argv,
        environ=os.environ,
        prog="slos-serve planner",
        check=PlannerOptions.check,
    )
    if options.explain is not None:
        from services.planner.server.explain import explain

        identity = identity_from(options.cluster_secret_file)
        work = explain(options.planner, options.explain, identity, as_json=options.json)
        return asyncio.run(work)
    set_up_logging("planner", os.environ)
    without_event_engine(os.environ)
    # numba takes a second to import, which --help and --check must not
    from services.planner.app import run

    return asyncio.run(run(options))


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program="slos-serve planner"))
