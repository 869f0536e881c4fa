"""Encryption of the KV port: one CURVE key pair that all engines of a cluster share."""

from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth

from shared.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """A CURVE key pair. A peer that does not hold it can neither connect nor listen."""

    public: bytes
    secret: bytes

    def protect_listener(self, socket: "zmq.Socket[bytes]") -> None:
        """Before bind. Only a peer that knows the public key, which never travels, gets through."""
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret

    def protect_caller(self, socket: "zmq.Socket[bytes]") -> None:
        """Before connect."""
        socket.curve_serverkey = self.public
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret


def read_keys(path: str) -> CurveKeys | None:
    """The key pair in a file that `make_key_file` wrote; None without a path.

    Raises ConfigError.
    """
    if not path:
        return None
    try:
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"kv_key_file: cannot read a key from {path} ({error}): "
            "make one with `slos-serve kv-key FILE`."
        ) from error
    if secret is None:
        raise ConfigError(f"kv_key_file: {path} holds no secret key: name the *.key_secret file.")
    return CurveKeys(public=public, secret=secret)


def new_keys() -> CurveKeys:
    return CurveKeys(*zmq.curve_keypair())


def make_key_file(path: Path) -> None:
    """Writes a new key pair that only its owner can read.

    Raises ConfigError when a file is there.
    """
    keys = new_keys()
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(
            "# CURVE key pair of the KV ports of one cluster. Keep it secret.\n"
            f'curve\n    public-key = "{keys.public.decode()}"\n'
            f'    secret-key = "{keys.secret.decode()}"\n'
        )
    except OSError as error:
        raise ConfigError(f"Cannot write {path} ({error.strerror}).") from error
