"""Lets NIXL's progress thread sleep until data comes.

The Python layer of NIXL sets the thread's delay to 0, which makes it busy-poll: every idle engine
would occupy one core. With any other delay it waits for its sockets, which wake it at once; the
delay is only the longest time between two checks.
"""

from typing import Any, Final

from nixl import _api as nixl_api

LOOK_EVERY_US: Final = 10_000


def let_progress_thread_sleep() -> None:
    """Applies to every agent that this process makes later. A second call changes nothing."""
    plain: Any = nixl_api.nixlBind.nixlAgentConfig
    if plain.__name__ == "PatientAgentConfig":
        return
    delay = plain.pthrDelay

    # mypy sees a base class from NIXL as Any.
    class PatientAgentConfig(plain):  # type: ignore[misc]
        """Replaces a delay of 0, which NIXL's Python layer sets, by LOOK_EVERY_US."""

        @property
        def pthrDelay(self) -> int:  # noqa: N802 - NIXL's name
            return int(delay.__get__(self))

        @pthrDelay.setter
        def pthrDelay(self, microseconds: int) -> None:  # noqa: N802 - NIXL's name
            delay.__set__(self, microseconds or LOOK_EVERY_US)

    nixl_api.nixlBind.nixlAgentConfig = PatientAgentConfig
