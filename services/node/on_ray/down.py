"""`slos-serve down`: ends a fleet on Ray."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from services.node.config import Positive
from services.node.on_ray.config import Cluster
from services.node.on_ray.up import require_ray
from shared.options import load, option


@dataclass(frozen=True, slots=True, kw_only=True)
class DownOptions:
    """The options of `down`."""

    on: Cluster = option(
        "auto", help="Ray cluster that the fleet runs on, as in `slos-serve up --on`"
    )
    limit_s: Positive = option(300.0, help="how long each service may take to drain and end")


def main(argv: Sequence[str]) -> int:
    """Ends the fleet; returns when requests in flight have ended and no actor is left. Raises
    ConfigError.
    """
    options = load(
        DownOptions, section="down", argv=argv, environ=os.environ, prog="slos-serve down"
    )
    require_ray()
    from services.node.on_ray import ray_cluster as cluster

    cluster.connect(options.on)
    try:
        cluster.members()  # raises where there is no fleet
        cluster.remove(options.limit_s)
    finally:
        cluster.disconnect()
    return 0
