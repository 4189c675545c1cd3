"""Keep the memory of one step for the next."""

from __future__ import annotations

import ctypes
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2


def keep_memory() -> None:
    """Ask the C library not to hand large blocks back to the system when they are freed.

    A training step frees and asks for the same blocks of some megabytes again and again; glibc
    gives each back to the kernel, which clears its pages anew every time: a third of the time of
    a step at width 1/4. Does nothing where the C library is another.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 2**26)
