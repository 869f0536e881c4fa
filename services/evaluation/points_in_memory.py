"""Points that one command keeps in memory only."""

from services.evaluation.points import Point, Task


class PointsInMemory:
    """Points in memory."""

    def __init__(self) -> None:
        self._points: list[Point] = []

    def find(self, task: Task) -> Point | None:
        return next((point for point in self._points if point.answers(task)), None)

    def add(self, point: Point) -> None:
        self._points.append(point)
