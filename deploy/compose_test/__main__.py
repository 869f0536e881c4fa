"""Builds, starts, tries and removes. Ends with 0 where there is no Docker, after one line."""

import argparse
import asyncio
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from deploy.compose_test import images
from deploy.compose_test.docker import Compose, Failed, lacking
from deploy.compose_test.load import Client
from deploy.compose_test.steps import Stage
from shared.clock import MonotonicClock

_PROJECT: Final = "slos-serve-test"
_DOWN_S: Final = 300.0
_TRANSPORTS: Final = ("nixl", "zmq")


def main(argv: Sequence[str]) -> int:
    options = _parse(argv)
    if missing := lacking():
        print(f"compose-test: skipped: {missing}")
        return 0
    clock = MonotonicClock()
    began_s = clock.now()

    def say(line: str) -> None:
        print(f"compose-test: {clock.now() - began_s:5.0f} s  {line}", flush=True)

    try:
        _run(options, clock, say)
    except Failed as error:
        say(f"FAILED: {error}")
        return 1
    say("all well")
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make compose-test", description=__doc__)
    parser.add_argument("--model", default="embedded", help="embedded (the default) or tiny")
    parser.add_argument("--base", default="", help="base image; default: debian, pulled or made")
    parser.add_argument("--transports", default=",".join(_TRANSPORTS), help="in this order")
    parser.add_argument("--kv-cache-gib", default="0.5", help="of each engine")
    parser.add_argument("--no-build", action="store_true", help="use what an earlier --keep left")
    parser.add_argument("--keep", action="store_true", help="leave containers and images")
    return parser.parse_args(argv)


def _run(options: argparse.Namespace, clock: MonotonicClock, say: Callable[[str], None]) -> None:
    base = options.base or images.base_image()
    say(f"base image: {base}")
    ports = _free_ports(3)
    environ = _environment(options, base, ports)
    compose = Compose(project=_PROJECT, environ=environ, observed=True)
    try:
        if not options.no_build:
            images.build(compose, base)
        say("images: " + ", ".join(f"{name} {size} MB" for name, size in images.sizes().items()))
        stage = Stage(
            compose=compose,
            client=Client(f"http://127.0.0.1:{ports[0]}", options.model, clock),
            clock=clock,
            prometheus=f"http://127.0.0.1:{ports[1]}",
            say=say,
        )
        asyncio.run(_try(stage, options.transports.split(",")))
    finally:
        if not options.keep:
            compose("down", "--volumes", "--remove-orphans", limit_s=_DOWN_S)
            images.remove()
            say("containers, networks, volumes and images are gone; the build's cache stays")


async def _try(stage: Stage, transports: Sequence[str]) -> None:
    for transport in transports:
        await stage.up(transport)
        await stage.demo_over(transport)
        stage.listens_only_where_documented(transport)
    await stage.scale_decode_under_load(transports[-1])
    await stage.dashboard_has_answers()
    for service in ("decode", "planner"):
        await stage.recovers(service)


def _environment(options: argparse.Namespace, base: str, ports: Sequence[int]) -> Mapping[str, str]:
    return {
        **images.pip_environment(),
        "BASE": base,
        "IMAGES": images.PREFIX,
        "PROMETHEUS_IMAGE": images.PROMETHEUS,
        "MODEL": options.model,
        "KV_CACHE_GIB": options.kv_cache_gib,
        "LISTEN": "127.0.0.1",
        "PORT": str(ports[0]),
        "PROMETHEUS_PORT": str(ports[1]),
        "GRAFANA_PORT": str(ports[2]),
    }


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
