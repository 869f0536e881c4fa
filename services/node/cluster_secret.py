"""`slos-serve cluster-secret FILE`: makes the secret that all parts of a cluster share."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from shared.cluster_secret import new_secret, read_secret, write_secret
from shared.errors import ConfigError

_KEEP: Final = "--keep"
_USAGE: Final = (
    "usage: slos-serve cluster-secret [--keep] FILE   (give the file to every part with "
    "--cluster-secret-file; --keep leaves one that is there as it is)"
)


def main(argv: Sequence[str]) -> int:
    """Writes the secret. Raises ConfigError, also for an existing file without `--keep`."""
    if {"-h", "--help"} & set(argv):
        print(_USAGE)
        return 0
    names = [word for word in argv if word != _KEEP]
    if len(names) != 1 or names[0].startswith("-"):
        raise ConfigError(f"cluster-secret takes one file name. {_USAGE}")
    path = Path(names[0]).expanduser()
    try:
        with suppress(*([FileExistsError] if _KEEP in argv else [])):
            write_secret(path, new_secret())
            print(f"Wrote {path}: give it to every part, and keep it secret.")
    except OSError as error:
        raise ConfigError(f"Cannot write {path} ({error.strerror}).") from error
    read_secret(str(path))
    return 0
