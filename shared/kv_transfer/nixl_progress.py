"""Lets NIXL's progress thread sleep until data comes. Moves no data itself.

The Python layer of NIXL fixes the thread's delay at 0, with which it polls without end: every
engine would keep one core busy while idle. With any other delay it waits for its sockets, which
wake it at once; the delay is only how often it looks without being woken.
"""

from typing import Any, Final

from nixl import _api as nixl_api

LOOK_EVERY_US: Final = 10_000


def let_progress_thread_sleep() -> None:
    """For every agent that this process makes from now on. A second call changes nothing."""
    plain: Any = nixl_api.nixlBind.nixlAgentConfig
    if plain.__name__ == "PatientAgentConfig":
        return
    delay = plain.pthrDelay

    # mypy sees a base class from NIXL as Any.
    class PatientAgentConfig(plain):  # type: ignore[misc]
        """Takes a delay of 0, the one that NIXL's Python layer sets, for ours."""

        @property
        def pthrDelay(self) -> int:  # noqa: N802 - NIXL's name
            return int(delay.__get__(self))

        @pthrDelay.setter
        def pthrDelay(self, microseconds: int) -> None:  # noqa: N802 - NIXL's name
            delay.__set__(self, microseconds or LOOK_EVERY_US)

    nixl_api.nixlBind.nixlAgentConfig = PatientAgentConfig
