"""`slos-serve health ADDRESS`: exit status 0 when the process at an address serves, else 1.

Made for the health checks of containers: it loads neither vLLM nor anything else that is slow.
"""

import sys
from collections.abc import Sequence
from typing import Final
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared.entry import exit_status
from shared.errors import ConfigError

_ANSWER_LIMIT_S: Final = 25.0  # a process that compiles at its first start is slow to answer
_USAGE: Final = (
    "slos-serve health ADDRESS: HOST:PORT asks an engine or the planner over gRPC, "
    "http://HOST:PORT/ready asks the gateway"
)


def main(argv: Sequence[str]) -> int:
    """Asks once and prints one line. Raises ConfigError when there is no single address."""
    if len(argv) != 1 or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):
            print(_USAGE)
            return 0
        raise ConfigError(f"health takes one address: {_USAGE}")
    fault = fault_of(argv[0])
    print(fault or "serving")
    return 1 if fault else 0


def fault_of(address: str) -> str:
    """Empty when the process serves; otherwise what keeps it from serving."""
    return _http_fault(address) if address.startswith("http") else _grpc_fault(address)


def _http_fault(url: str) -> str:
    try:
        # Without a proxy of the environment: the address is local.
        with build_opener(ProxyHandler({})).open(url, timeout=_ANSWER_LIMIT_S):
            return ""
    except (URLError, OSError) as error:
        return f"{url}: {error}"


def _grpc_fault(address: str) -> str:
    options = (("grpc.enable_http_proxy", 0),)
    with grpc.insecure_channel(address, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=_ANSWER_LIMIT_S)
        except grpc.RpcError as error:
            return f"{address}: {error.code().name.lower().replace('_', ' ')}"
    serving = reply.status == health_pb2.HealthCheckResponse.SERVING
    return "" if serving else f"{address}: not serving"


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program="slos-serve health"))
