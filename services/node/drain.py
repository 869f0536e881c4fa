"""`slos-serve drain HOST:PORT`: stops new requests to an engine; `--undo` resumes them."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import grpc
from pydantic import Field

from shared.addresses import require_address
from shared.cluster_secret import IDENTITY_HELP, IDENTITY_VARIABLE
from shared.errors import ConfigError, EngineUnreachable
from shared.options import load, option
from shared.rpc import slos_pb2 as pb
from shared.rpc.channels import open_channel
from shared.rpc.identity import identity_from
from shared.rpc.slos_pb2_grpc import EngineStub

_ANSWER_LIMIT_S: Final = 5.0
_PROGRAM: Final = "slos-serve drain HOST:PORT"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainOptions:
    """The options of a drain."""

    cluster_secret_file: str = option("", help=IDENTITY_HELP, variable=IDENTITY_VARIABLE)
    limit_s: Annotated[float, Field(ge=0)] = option(
        30.0, help="how long to wait for the requests that it has; those left then go on elsewhere"
    )
    undo: bool = option(False, help="let it take requests again")


def main(argv: Sequence[str]) -> int:
    """Returns 1 when requests are left after the limit, else 0. Raises ConfigError and
    EngineUnreachable.
    """
    addresses = [word for word in argv[:1] if not word.startswith("-")]
    options = load(
        DrainOptions,
        section="drain",
        argv=argv[len(addresses) :],
        environ=os.environ,
        prog=_PROGRAM,
    )
    if not addresses:
        raise ConfigError(f"drain takes the gRPC address of an engine first: {_PROGRAM}")
    address = require_address(addresses[0], "drain")
    left = asyncio.run(ask(address, options))
    if options.undo:
        print(f"{address} takes requests again.")
    elif left:
        print(f"{address} takes nothing new; {left} requests did not end in time.")
    else:
        print(f"{address} takes nothing new and runs nothing; --undo ends that.")
    return 1 if left else 0


async def ask(address: str, options: DrainOptions) -> int:
    """Drains or resumes the engine; returns how many requests are left. Raises ConfigError and
    EngineUnreachable.
    """
    async with open_channel(address, identity_from(options.cluster_secret_file)) as channel:
        engine = EngineStub(channel)
        try:
            if options.undo:
                await engine.Undrain(pb.UndrainRequest(), timeout=_ANSWER_LIMIT_S)
                return 0
            limit_s = options.limit_s
            reply = await engine.Drain(
                pb.DrainRequest(limit_s=limit_s), timeout=limit_s + _ANSWER_LIMIT_S
            )
        except grpc.aio.AioRpcError as error:
            what = f"{error.code().name.lower().replace('_', ' ')}: {error.details()}"
            raise EngineUnreachable(
                f"The engine at {address} did not answer ({what}). One with a cluster secret "
                "answers only with --cluster-secret-file."
            ) from error
    return reply.left_over
