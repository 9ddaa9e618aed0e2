"""Tells the C library's allocator to keep the memory that an evaluator frees, because the next candidate needs it.

By default glibc maps large blocks afresh each time and returns the free end of its heaps to the system; activations are
such blocks. The number of page faults of an evaluation then depends on the process's first allocations, so two workers
of one job differ in speed: for ResNet-20 by up to 40 %, as observed on the development machine; no benchmark shows it.
At most the memory that the largest candidate needed is kept. Other C libraries (musl, macOS) are left unchanged.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from types import MappingProxyType

_LARGEST_MMAP_THRESHOLD = 32 << 20
"""Bytes; glibc accepts no larger threshold."""
_KEPT = 1 << 30
"""Bytes that may be free at the end of the heap before they are returned to the system."""
_M_TRIM_THRESHOLD = -1  # malloc.h
_M_MMAP_THRESHOLD = -3

KEEPING: Mapping[str, str] = MappingProxyType(
    {
        "MALLOC_MMAP_THRESHOLD_": str(_LARGEST_MMAP_THRESHOLD),
        "MALLOC_TRIM_THRESHOLD_": str(_KEPT),
        "MALLOC_ARENA_MAX": "1",
    }
)
"""Environment of a process that evaluates outside its main thread, as a Ray actor does.

An arena that belongs to a thread consists of heaps of 64 MB that are returned to the system whatever the thresholds
are, and only a starting process can be told to have no such arenas.
"""


def keep_freed_memory() -> None:
    """Keep the memory that this process's main thread frees for the next allocations."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
