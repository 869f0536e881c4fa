"""Binds the address that the gateway, or one of its workers, will listen on."""

import socket

from shared.errors import ConfigError


def bind(host: str, port: int, unread_limit_s: float) -> socket.socket:
    """A bound TCP socket. Raises ConfigError when the address is taken or not of this machine.

    Its connections end when a client reads nothing of what was sent to it for `unread_limit_s`.
    """
    return _bound(_socket(host, unread_limit_s), host, port)


def bind_shared(host: str, port: int, unread_limit_s: float) -> socket.socket:
    """As `bind`, for one of several processes: the kernel spreads connections over all that listen.

    Other programs of the same user that ask for it could share the address, too.
    """
    listener = _socket(host, unread_limit_s)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return _bound(listener, host, port)


def _socket(host: str, unread_limit_s: float) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted connections inherit it
        limit_ms = int(unread_limit_s * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
    return listener


def _bound(listener: socket.socket, host: str, port: int) -> socket.socket:
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); "
            "free it, or give the gateway another with --port (SLOS_GATEWAY_PORT) or --host"
        ) from error
    return listener
