"""`slos-serve health ADDRESS`: exit status 0 if the process at an address serves, else 1.

It is for health checks of containers, and loads neither vLLM nor any other slow library.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared.addresses import require_address
from shared.cluster_secret import IDENTITY_VARIABLE
from shared.entry import exit_status
from shared.errors import ConfigError
from shared.rpc.identity import Identity, identity_from

_ANSWER_LIMIT_S: Final = 25.0  # a process that compiles at its first start is slow to answer
_FILE_FLAG: Final = "--cluster-secret-file"
_USAGE: Final = (
    f"slos-serve health [{_FILE_FLAG} FILE] ADDRESS: HOST:PORT asks an engine or the planner "
    f"over gRPC, http://HOST:PORT/ready asks the gateway; the file may be in {IDENTITY_VARIABLE}"
)


def main(argv: Sequence[str]) -> int:
    """Asks once and prints one line. Raises ConfigError without exactly one address."""
    words, secret_file = list(argv), os.environ.get(IDENTITY_VARIABLE, "")
    if _FILE_FLAG in words[:-1]:
        at = words.index(_FILE_FLAG)
        secret_file = words[at + 1]
        del words[at : at + 2]
    if len(words) != 1 or words[0].startswith("-"):
        if {"-h", "--help"} & set(argv):
            print(_USAGE)
            return 0
        raise ConfigError(f"health takes one address: {_USAGE}")
    fault = fault_of(words[0], secret_file)
    print(fault or "serving")
    return 1 if fault else 0


def fault_of(address: str, secret_file: str) -> str:
    """Why the process does not serve; empty if it does. Raises ConfigError."""
    if address.startswith("http"):
        host = urlsplit(address).netloc
        if ":" in host and not host.endswith("]"):
            require_address(host, "health")
        return _http_fault(address)
    return _grpc_fault(require_address(address, "health"), identity_from(secret_file))


def _http_fault(url: str) -> str:
    try:
        # Without the environment's proxy: the address is local.
        with build_opener(ProxyHandler({})).open(url, timeout=_ANSWER_LIMIT_S):
            return ""
    except (URLError, OSError) as error:
        return f"{url}: {error}"


def _grpc_fault(address: str, identity: Identity | None) -> str:
    with _channel(address, identity) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=_ANSWER_LIMIT_S)
        except grpc.RpcError as error:
            return f"{address}: {error.code().name.lower().replace('_', ' ')}"
    serving = reply.status == health_pb2.HealthCheckResponse.SERVING
    return "" if serving else f"{address}: not serving"


def _channel(address: str, identity: Identity | None) -> grpc.Channel:
    options = (("grpc.enable_http_proxy", 0),)
    if identity is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(
        address, identity.for_channel(), options=(*options, *identity.channel_options)
    )


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program="slos-serve health"))
