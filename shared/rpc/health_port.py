"""Serves gRPC health on an extra port, for probes without a certificate."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from grpc_health.v1 import health_pb2_grpc

from shared.errors import ConfigError
from shared.rpc.channels import bind, make_server


@asynccontextmanager
async def health_port(servicer: Any, host: str, port: int) -> AsyncIterator[None]:
    """Serves `servicer` without encryption while the context lasts; port 0: not at all.

    Raises ConfigError when the port is taken.
    """
    if not port:
        yield
        return
    server = make_server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    try:
        bind(server, host, port)
    except OSError as error:
        raise ConfigError(f"health_port: cannot listen on {host}:{port} ({error})") from error
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
