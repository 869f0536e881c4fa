"""Files of one JSON object per line. Each line is written at once; a line cut by a kill leaves the
others intact.
"""

from pathlib import Path

from shared.errors import ConfigError


def lines_of(path: Path) -> list[str]:
    """All lines, including empty and truncated ones; none without a file."""
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def append_line(path: Path, line: str) -> None:
    """Appends a line, also after a truncated one. Raises ConfigError where it cannot."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}") from error
