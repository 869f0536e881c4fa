"""The options of `slos-serve up`, on this machine and on Ray, and what nodes get of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import yaml
from pydantic import AfterValidator, Field

from services.node.config import Count, NodeOptions, Positive
from shared.addresses import is_address
from shared.listening import INSECURE_VARIABLE
from shared.option_values import Form, unfit
from shared.options import load, option

_CONFIG: Final = "config"
_CLIENT: Final = "ray://"


def _cluster(text: str) -> str:
    if text not in ("", "auto", "ray") and not is_address(text.removeprefix(_CLIENT)):
        raise unfit()
    return text


Cluster = Annotated[
    str, AfterValidator(_cluster), Form(f"{_CLIENT}HOST:PORT, HOST:PORT, auto or ray")
]
"""The type of an option that names a Ray cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions(NodeOptions):
    """A node's options, and those that only `--on` reads."""

    host: str = option(
        "",
        help="address that the gateway listens on; default: 127.0.0.1, with --on that of its node",
    )
    on: Cluster = option(
        "",
        help="Ray cluster to run on: ray://HOST:10001 (Ray Client), HOST:6379, auto (RAY_ADDRESS"
        " or the one of this machine), or ray (the same, or a new one); default: this machine",
    )
    insecure: bool = option(
        False,
        help="with --on: no secret, so that all that reaches a part may use it; the network must"
        " then keep strangers out. Without this and --cluster-secret-file, --on makes a secret",
        variable=INSECURE_VARIABLE,
    )
    gateways: Count = option(1, help="number of gateways on Ray, at most one on each node")
    gateway_resource: str = option(
        "", help="custom resource of the Ray nodes that gateways run on; default: any node"
    )
    cpus_per_engine: Positive = option(1.0, help="CPUs that Ray reserves for each engine")
    most_engines: Count = option(64, help="most engines of one role on Ray, however it is scaled")
    autoscale: bool = option(
        False, help="run as many engines on Ray as the planner says its requests need"
    )
    scale_down_after_s: Annotated[float, Field(ge=0)] = option(
        60.0, help="how long the planner must want fewer engines before Ray stops one"
    )
    detach: bool = option(
        False, help="leave the fleet on Ray once it serves; `slos-serve down` ends it"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """What a node of the cluster needs to start a part.

    `config` is the text of the YAML file that parts read; `environ` are variables of every part;
    `secret` is the cluster secret, empty where each node has a file with it, or there is none.
    """

    up: UpOptions
    config: str = ""
    secret: str = field(default="", repr=False)
    environ: Mapping[str, str] = field(default_factory=dict)
    gpus_per_engine: int = 0


def fleet_of(arguments: Mapping[str, Any]) -> FleetOptions:
    """From the arguments of a Serve application: options of `up` by YAML key, and `config`.

    `config` holds the sections of the parts; `cluster_secret_file` is a file on every node.
    Raises ConfigError.
    """
    words = [
        f"--{key.replace('_', '-')}={value}" for key, value in arguments.items() if key != _CONFIG
    ]
    up = load(UpOptions, section="node", argv=words, environ={}, prog="slos-serve on Ray Serve")
    config = arguments.get(_CONFIG)
    return FleetOptions(
        up=up,
        config=yaml.safe_dump(config) if config else "",
        gpus_per_engine=up.gpus_per_engine or 0,
    )
