"""How a process proves over gRPC that it belongs to the cluster: mutual TLS from its secret."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from shared.cluster_secret import IDENTITY_VARIABLE, PART_NAME, Certificates, read_secret


@dataclass(frozen=True, slots=True)
class Identity:
    """Both sides of a connection show a certificate that only the cluster's secret can make."""

    certificates: Certificates

    def for_server(self, on_handshake: Callable[[], None]) -> grpc.ServerCredentials:
        """`on_handshake` is called before each, on a thread of gRPC."""
        own = self.certificates
        shown = grpc.ssl_server_certificate_configuration(
            [(own.key, own.certificate)], own.authority
        )
        return grpc.dynamic_ssl_server_credentials(
            shown,
            on_handshake,  # type: ignore[arg-type] # None: the certificate stays as it is
            require_client_authentication=True,
        )

    def for_channel(self) -> grpc.ChannelCredentials:
        own = self.certificates
        return grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)

    @property
    def channel_options(self) -> tuple[tuple[str, str], ...]:
        """A peer is known by its certificate's authority, so its address need not be in it."""
        return (("grpc.ssl_target_name_override", PART_NAME),)


def own_identity() -> Identity | None:
    """For commands without an option for it: by the variable that all parts read.

    Raises ConfigError.
    """
    return identity_from(os.environ.get(IDENTITY_VARIABLE, ""))


def identity_from(path: str) -> Identity | None:
    """None without a path: connections are then neither encrypted nor authenticated.

    Raises ConfigError.
    """
    secret = read_secret(path)
    return None if secret is None else Identity(secret.certificates())
