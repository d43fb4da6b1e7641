"""Makes the C library return the memory of large blocks to the system.

As soon as a block of its own mapping is freed, glibc raises the size from which on it maps blocks, up to 32 MB. Arrays
and messages of some hundred kilobytes then come from the heap, which they fragment (mallopt(3), M_MMAP_THRESHOLD). The
memory of ingestion was a fifth larger.
"""

import ctypes
import os
from collections.abc import Mapping

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGE_BYTES = 256_000  # from which on blocks are mapped
_TRIM_BYTES = 1_000_000  # free bytes at the end of the heap that are returned
_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def return_large_blocks(environment: Mapping[str, str] = os.environ) -> bool:
    """Sets glibc's thresholds. Returns False if there is no glibc, or the environment sets its allocator."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name in environment for name in _VARIABLES):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES))
