"""`slos-serve kv-key FILE`: makes the key for the option `kv_key_file` of all engines."""

from collections.abc import Sequence
from pathlib import Path

from shared.errors import ConfigError
from shared.kv_transfer.curve import make_key_file

_USAGE = "usage: slos-serve kv-key FILE   (give the file to every engine with --kv-key-file)"


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError."""
    if argv and argv[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if len(argv) != 1:
        raise ConfigError(f"kv-key takes one file name. {_USAGE}")
    make_key_file(Path(argv[0]))
    print(f"Wrote {argv[0]}: give it to every engine with --kv-key-file, and keep it secret.")
    return 0
