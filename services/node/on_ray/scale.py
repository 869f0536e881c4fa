"""`slos-serve scale decode=4 prefill=2`: changes the number of engines on Ray while they serve."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.node.config import Positive
from services.node.on_ray.config import Cluster
from services.node.on_ray.place import Service
from services.node.on_ray.up import member_lines, missing, raise_if_failed, require_ray
from shared.clock import Clock, MonotonicClock
from shared.errors import ConfigError, DeadlinePassed
from shared.options import load, option
from shared.spelling import nearest

_ASK_EVERY_S: Final = 0.5
_AUTO: Final = "auto"
_COUNT: Final = re.compile(r"(\w+)=(\d+|auto)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleOptions:
    """The options of `scale`."""

    on: Cluster = option(
        "auto", help="Ray cluster that the fleet runs on, as in `slos-serve up --on`"
    )
    wait: bool = option(True, help="return when the new number serves and no engine drains")
    wait_limit_s: Positive = option(600.0, help="how long that may take")


def main(argv: Sequence[str]) -> int:
    """Sets the numbers and prints the fleet. Raises ConfigError, EngineLost and DeadlinePassed."""
    counts = wanted_counts([word for word in argv if not word.startswith("-") and "=" in word])
    words = [word for word in argv if word.startswith("-") or "=" not in word]
    options = load(
        ScaleOptions,
        section="scale",
        argv=words,
        environ=os.environ,
        prog="slos-serve scale [decode=N|auto] [prefill=N|auto] [gateway=N]",
    )
    require_ray()
    from services.node.on_ray import ray_cluster as cluster

    cluster.connect(options.on)
    try:
        cluster.fix(counts)
        fixed = {service: count for service, count in counts.items() if count is not None}
        if options.wait:
            wait_for(fixed, options.wait_limit_s, MonotonicClock())
        print("\n".join(member_lines(cluster.members())))
    finally:
        cluster.disconnect()
    return 0


def wanted_counts(words: Sequence[str]) -> Mapping[Service, int | None]:
    """Parses `decode=4` and the like; None for `auto`, the planner's advice. Raises ConfigError."""
    counts: dict[Service, int | None] = {}
    for word in words:
        match = _COUNT.fullmatch(word)
        if match is None or match[1] not in list(Service):
            name = word.partition("=")[0]
            raise ConfigError(
                f"Cannot scale by {word!r}{nearest(name, list(Service))}: say decode=4, prefill=2, "
                "gateway=2, or decode=auto."
            )
        service = Service(match[1])
        counts[service] = None if match[2] == _AUTO else int(match[2])
        if counts[service] == 0 and service is not Service.PREFILL:
            raise ConfigError(f"{word}: at least one {service} is needed; prefill alone may be 0.")
    return counts


def wait_for(counts: Mapping[Service, int], limit_s: float, clock: Clock) -> None:
    from services.node.on_ray import ray_cluster as cluster

    until_s = clock.now() + limit_s
    while True:
        states = cluster.states()
        raise_if_failed({service: states[service] for service in counts if service in states})
        awaited = missing(states, counts)
        if not awaited and cluster.is_complete():
            return
        if clock.now() > until_s:
            raise DeadlinePassed(
                f"Not there after {limit_s:g} s: {awaited or 'engines at the planner'}. Ray may "
                "have no room for them (`ray status`)."
            )
        time.sleep(_ASK_EVERY_S)
