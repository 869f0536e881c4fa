"""The secret that all processes of a cluster share: its file, and the keys derived from it."""

import datetime as dt
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shared.errors import ConfigError

IDENTITY_VARIABLE: Final = "SLOS_CLUSTER_SECRET_FILE"
"""Names the file for every process and command without a flag or YAML key for it."""

IDENTITY_HELP: Final = (
    "file with the secret that all parts of a cluster share; parts then encrypt what they say to"
    " each other and refuse peers without it (make one with slos-serve cluster-secret FILE)"
)
PART_NAME: Final = "slos-serve"
"""The name in every certificate: a peer is identified by the secret, not by its address."""

_MADE_BYTES: Final = 32
_LEAST_CHARACTERS: Final = 32  # a peer could guess a shorter one offline from a certificate
_AUTHORITY_NAME: Final = "slos-serve cluster"
# Certificates are valid as long as the secret, so that no wrong clock splits a cluster.
_VALID_FROM: Final = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_VALID_TO: Final = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# 128 bits more than the order has, so that the remainder is close to uniform (FIPS 186-5, A.2.1)
_SCALAR_BYTES: Final = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """For TLS, as PEM: a process's key and certificate, and the authority that it trusts."""

    key: bytes = field(repr=False)
    certificate: bytes
    authority: bytes


@dataclass(frozen=True, slots=True)
class ClusterSecret:
    """The secret, never printed. Keys derived for one purpose reveal nothing of others."""

    value: bytes = field(repr=False)

    def derive(self, purpose: str, length: int) -> bytes:
        """Key material of `length` bytes, the same in every process (HKDF-SHA256)."""
        # Imported here, so that a process without a secret does not wait for it
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        info = f"slos-serve {purpose}".encode()
        return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(self.value)

    def certificates(self) -> Certificates:
        """An authority with a key derived from the secret, and a fresh certificate signed by it.

        Only a process with the secret can make one that others accept.
        """
        from cryptography.hazmat.primitives.asymmetric import ec

        scalar = int.from_bytes(self.derive("certificate authority", _SCALAR_BYTES), "big")
        authority = ec.derive_private_key(scalar % (_P256_ORDER - 1) + 1, ec.SECP256R1())
        own = ec.generate_private_key(ec.SECP256R1())
        return Certificates(
            key=_key_pem(own),
            certificate=_certificate(authority, PART_NAME, own.public_key(), is_authority=False),
            authority=_certificate(
                authority, _AUTHORITY_NAME, authority.public_key(), is_authority=True
            ),
        )


def read_secret(path: str) -> ClusterSecret | None:
    """The secret in a file; None without a path.

    Raises ConfigError if it cannot be read, is too short, or can be read by all users.
    """
    if not path:
        return None
    file = Path(path).expanduser()
    try:
        mode = file.stat().st_mode
        value = file.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"cluster_secret_file: cannot read {path} ({error.strerror}): "
            "make one with `slos-serve cluster-secret FILE`."
        ) from error
    if mode & stat.S_IRWXO:
        raise ConfigError(
            f"cluster_secret_file: every user of this machine may open {path}: chmod 600 {path}"
        )
    if len(value) < _LEAST_CHARACTERS:
        raise ConfigError(
            f"cluster_secret_file: {path} holds {len(value)} characters, needed are "
            f"{_LEAST_CHARACTERS}: make one with `slos-serve cluster-secret FILE`."
        )
    return ClusterSecret(value)


def new_secret() -> str:
    return secrets.token_hex(_MADE_BYTES)


def write_secret(path: Path, text: str) -> None:
    """Writes a new file that only its owner can read.

    Raises FileExistsError if the file exists, and OSError.
    """
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(f"{text}\n")


def _key_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def _certificate(authority: Any, name: str, public_key: Any, *, is_authority: bool) -> bytes:
    """A certificate for `public_key`, signed with the key `authority`, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    built = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(_AUTHORITY_NAME))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_VALID_FROM)
        .not_valid_after(_VALID_TO)
        .add_extension(
            x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None),
            critical=True,
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(PART_NAME)]), critical=False)
    )
    return built.sign(authority, SHA256()).public_bytes(Encoding.PEM)
