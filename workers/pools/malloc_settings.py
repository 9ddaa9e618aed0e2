"""Tells the C library's allocator to keep the memory that an evaluator frees, because the next candidate needs it.

By default, glibc maps each large block afresh and returns the free end of its heaps to the system. Activations are such
large blocks. The number of page faults during an evaluation then depends on the process's first allocations, so two
workers of one job differ in speed. For ResNet-20, their speeds differed by up to 40 % on the development machine; no
benchmark shows this. The memory that is kept never exceeds what the largest candidate needed. Other C libraries (musl,
macOS) are left unchanged.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from types import MappingProxyType

_LARGEST_MMAP_THRESHOLD = 32 << 20
"""The largest threshold that glibc accepts, in bytes."""
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

An arena that belongs to a thread consists of heaps of 64 MB, which are returned to the system whatever the thresholds
are. Only a starting process can be told to have no such arenas.
"""


def keep_freed_memory() -> None:
    """Make this process keep the memory that its main thread frees, so that later allocations can use it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
