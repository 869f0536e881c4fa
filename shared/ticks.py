"""The unit in which a process counts the silence of another one."""

from typing import Final

TICK_S: Final = 0.25
