"""Shows the progress of a start: one line per ready part, and the parts that are awaited."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.status import Status

_REMIND_EVERY_S: Final = 15.0


@dataclass(slots=True)
class Progress:
    """The progress of one start. Awaited parts are a live line on a terminal, else a line every
    15 s.
    """

    console: Console
    awaited: list[str]
    _status: Status | None = None
    _reminded_at_s: float = field(default=0.0)

    @classmethod
    def of(cls, console: Console, names: Iterable[str]) -> "Progress":
        return cls(console, list(names))

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._status = self.console.status(self._waiting_for(0.0))
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def ready(self, name: str, after_s: float) -> None:
        self.awaited.remove(name)
        self.console.print(f"  {name:<12} ready after {after_s:5.1f} s", highlight=False)

    def tick(self, after_s: float) -> None:
        """Updates the awaited parts; to be called about once a second."""
        if self._status:
            self._status.update(self._waiting_for(after_s))
        elif after_s - self._reminded_at_s >= _REMIND_EVERY_S:
            self._reminded_at_s = after_s
            self.console.print(f"  {self._waiting_for(after_s)}", highlight=False)

    def _waiting_for(self, after_s: float) -> str:
        return f"waiting for {', '.join(self.awaited) or 'the engines to attach'} ({after_s:.0f} s)"
