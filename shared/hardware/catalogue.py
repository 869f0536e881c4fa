"""Loads hardware by name from the packaged tables, or from a file of the same form."""

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from shared.errors import ConfigError
from shared.hardware.hardware import Draft, Hardware
from shared.hardware.memory import KvMemory
from shared.hardware.truth import TrueStep

_SUFFIX = ".toml"
_TABLES = files(__package__) / "tables"


def names() -> list[str]:
    """The names of all packaged tables, in order."""
    found = (one.name for one in _TABLES.iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX))


def load(name: str) -> Hardware:
    """A packaged table by its name. Raises ConfigError, with all names, if there is none."""
    if name not in names():
        raise ConfigError(f"no hardware is called {name!r}; there are {', '.join(names())}")
    return _hardware(name, (_TABLES / (name + _SUFFIX)).read_text(encoding="utf-8"))


def read(path: Path) -> Hardware:
    """The table in a file, named like the file. Raises ConfigError if it is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return _hardware(path.stem, text)


def _hardware(name: str, text: str) -> Hardware:
    try:
        return _from_plain(name, tomllib.loads(text))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{name}{_SUFFIX} is no table of hardware: {error!r}") from error


def _from_plain(name: str, plain: Mapping[str, Any]) -> Hardware:
    engine, memory = plain["engine"], plain["memory"]
    draft = Draft(**plain["draft"]) if "draft" in plain else None
    drafts = {"draft_s": draft.step_s, "draft_sequence_s": draft.sequence_s} if draft else {}
    return Hardware(
        name=name,
        model=plain["model"],
        gpu=plain["gpu"],
        gpus=plain["gpus"],
        source=plain["source"].strip(),
        step=TrueStep(**plain["step"], **drafts),
        kv_blocks=KvMemory(gpus=plain["gpus"], **memory).blocks(engine["block_size_tokens"]),
        kv_bytes_per_token=memory["kv_bytes_per_token"],
        draft=draft,
        **plain["stalls"],
        **engine,
        **plain["link"],
    )
