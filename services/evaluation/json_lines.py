"""Files of one JSON object a line, each on disk at once; one that a kill cut costs no other."""

from pathlib import Path

from shared.errors import ConfigError


def lines_of(path: Path) -> list[str]:
    """All lines, empty ones and those that were cut short among them; none without a file."""
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def append_line(path: Path, line: str) -> None:
    """Begins a line of its own, whatever the file ends with. Raises ConfigError."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}") from error
