"""Encryption of the KV port: one CURVE key pair that all engines of a cluster share."""

from dataclasses import dataclass, field

import zmq
from zmq.utils import z85

from shared.cluster_secret import read_secret

_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """A CURVE key pair. A peer that does not hold it can neither connect nor listen."""

    public: bytes
    secret: bytes = field(repr=False)

    def protect_listener(self, socket: "zmq.Socket[bytes]") -> None:
        """Call it before bind. Only peers with the public key, which is never sent, can connect."""
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret

    def protect_caller(self, socket: "zmq.Socket[bytes]") -> None:
        """Call it before connect."""
        socket.curve_serverkey = self.public
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret


def keys_from(path: str) -> CurveKeys | None:
    """The key pair derived from the cluster's secret in a file; None without a path.

    Raises ConfigError.
    """
    cluster_secret = read_secret(path)
    if cluster_secret is None:
        return None
    secret = z85.encode(cluster_secret.derive("KV port", _KEY_BYTES))
    return CurveKeys(public=zmq.curve_public(secret), secret=secret)


def new_keys() -> CurveKeys:
    return CurveKeys(*zmq.curve_keypair())
