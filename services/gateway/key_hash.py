"""`slos-serve key-hash`: prints the hash of an API key for a tenants file."""

import secrets
import sys
from collections.abc import Sequence
from typing import Final

from services.gateway.tenants import hash_of
from shared.errors import ConfigError

_NEW: Final = "--new"
_USAGE: Final = (
    "usage: slos-serve key-hash [--new]   (reads a key from standard input and prints its hash "
    "for the tenants file; --new makes a key first and prints both)"
)


def main(argv: Sequence[str]) -> int:
    """Reads the key from standard input, since every user sees arguments. Raises ConfigError."""
    if {"-h", "--help"} & set(argv):
        print(_USAGE)
        return 0
    if any(word != _NEW for word in argv):
        raise ConfigError(f"key-hash takes its key from standard input. {_USAGE}")
    if argv:
        key = f"sk-{secrets.token_urlsafe(32)}"
        print(f"key:  {key}")
        print(f"hash: {hash_of(key.encode())}")
        return 0
    if sys.stdin.isatty():
        print("key (then Enter): ", end="", file=sys.stderr, flush=True)
    key = sys.stdin.readline().strip()
    if not key:
        raise ConfigError(f"key-hash read no key. {_USAGE}")
    print(hash_of(key.encode()))
    return 0
