"""Makes glibc keep freed memory for the next message.

ZeroMQ allocates a received frame and frees it. By default glibc returns such memory to the system,
and the next frame needs fresh pages: two fifths of the system time of a transfer.
"""

import ctypes
from typing import Final

from shared.kv_transfer.tuning import KEPT_FREE_BYTES, LARGEST_KEPT_BYTES

_M_TRIM_THRESHOLD: Final = -1  # glibc's malloc.h
_M_MMAP_THRESHOLD: Final = -3


def keep_freed_memory() -> None:
    """Sets glibc's thresholds for the whole process; no effect with another C library."""
    library = ctypes.CDLL(None)
    mallopt = getattr(library, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES)
