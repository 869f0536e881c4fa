"""Binds the address that the gateway will listen on."""

import socket

from shared.errors import ConfigError


def bind(host: str, port: int, unread_limit_s: float) -> socket.socket:
    """A bound TCP socket. Raises ConfigError when the address is taken or not of this machine.

    Its connections end when a client reads nothing of what was sent to it for `unread_limit_s`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted connections inherit it
        limit_ms = int(unread_limit_s * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); "
            "free it, or give the gateway another with --port (SLOS_GATEWAY_PORT) or --host"
        ) from error
    return listener
