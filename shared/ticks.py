"""The unit in which one process counts how long another one has given no sign."""

from typing import Final

TICK_S: Final = 0.25
