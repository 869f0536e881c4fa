"""Takes the address that the gateway will listen on. Accepts nothing yet."""

import socket

from shared.errors import ConfigError


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket. Raises ConfigError when the address is taken or not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); "
            "free it, or give the gateway another with --port (SLOS_GATEWAY_PORT) or --host"
        ) from error
    return listener
