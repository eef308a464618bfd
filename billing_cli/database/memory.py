"""Memory that the driver needed, for what comes after it."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def return_freed_memory() -> None:
    """Return memory that the C library keeps for its own use to the system, where it can.

    Rows and messages of the driver leave it behind, and Python's objects can't use it: of 100,000
    streams 55 MB. It takes a few milliseconds for these, and next to nothing for few streams.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
