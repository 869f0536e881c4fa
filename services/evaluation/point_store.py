"""Points on disk, one line of JSON each, so that nothing is simulated twice."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from services.evaluation.json_lines import append_line, lines_of
from services.evaluation.points import Point, Task, from_line, to_line
from services.evaluation.version import version_of
from shared.errors import ConfigError

FILE = "points.jsonl"


class PointStore:
    """The points of one folder. Points of other versions of the code are left out, unless `older`
    allows them. Truncated lines are skipped.
    """

    def __init__(self, folder: Path, *, older: bool = False) -> None:
        self._path = folder / FILE
        self._points: dict[str, list[Point]] = defaultdict(list)
        self.outdated = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for point in _read(self._path):
                if older or point.version == version_of(point.task.system):
                    self._points[point.task.load_and_system].append(point)
                else:
                    self.outdated += 1
        except OSError as error:
            raise ConfigError(f"--out {folder} cannot be used: {error}") from error

    def find(self, task: Task) -> Point | None:
        """A point that answers this task; None where there is none."""
        known = self._points.get(task.load_and_system, [])
        return next((point for point in known if point.answers(task)), None)

    def add(self, point: Point) -> None:
        """Adds a point and writes it to disk at once."""
        append_line(self._path, to_line(point))
        self._points[point.task.load_and_system].append(point)

    def keep(self, name: str) -> str:
        """Copies a file beside the points, under a name with its digest: after a change of the file
        other points are asked for. Returns the path of the copy, or `name` where it is no file.
        """
        path = Path(name)
        if not path.is_file():
            return name
        text = path.read_bytes()
        digest = hashlib.sha256(text).hexdigest()[:8]
        copy = self._path.parent.resolve() / f"{path.stem}-{digest}{path.suffix}"
        try:
            copy.write_bytes(text)
        except OSError as error:
            raise ConfigError(f"{copy} cannot be written: {error}") from error
        return str(copy)

    def __iter__(self) -> Iterator[Point]:
        for points in self._points.values():
            yield from points


def _read(path: Path) -> Iterator[Point]:
    for line in lines_of(path):
        try:
            yield from_line(line)
        except (ValueError, KeyError, TypeError):
            continue
