"""Authenticates the processes of a cluster over gRPC: mutual TLS from the cluster's secret."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from shared.cluster_secret import IDENTITY_VARIABLE, PART_NAME, Certificates, read_secret


@dataclass(frozen=True, slots=True)
class Identity:
    """Both sides of a connection present a certificate that only the cluster's secret can make."""

    certificates: Certificates

    def for_server(self, on_handshake: Callable[[], None]) -> grpc.ServerCredentials:
        """A server's credentials. `on_handshake` is called before each, on a thread of gRPC."""
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
        """Peers are identified by their certificate's authority, not by the address in it."""
        return (("grpc.ssl_target_name_override", PART_NAME),)


def own_identity() -> Identity | None:
    """The identity by the environment variable, for commands without an option for it.

    Raises ConfigError.
    """
    return identity_from(os.environ.get(IDENTITY_VARIABLE, ""))


def identity_from(path: str) -> Identity | None:
    """The identity by a secret file; None, so no encryption and authentication, without a path.

    Raises ConfigError.
    """
    secret = read_secret(path)
    return None if secret is None else Identity(secret.certificates())
