"""The folder in which a measurement keeps logs and sockets."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def run_folder(named: str) -> Iterator[Path]:
    """The operator's folder, made where it is missing; a temporary one where none is named."""
    if not named:
        with TemporaryDirectory(prefix="slos-bench-") as temporary:
            yield Path(temporary)
        return
    folder = Path(named).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
