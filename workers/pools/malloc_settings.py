"""The C library's allocator, told to keep what an evaluator frees: the next candidate needs it again.

glibc maps large blocks anew each time and gives back the free end of its heaps, and activations are such blocks. How
many page faults an evaluation takes then depends on a process's first allocations, so that two workers of one job
differ: for ResNet-20 by up to 40 % of the time, looked at on the machine this was written on; no benchmark shows it.
What is kept is at most what the largest candidate needed. Other C libraries (musl, macOS) are left as they are.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from types import MappingProxyType

_LARGEST_MMAP_THRESHOLD = 32 << 20
"""Bytes; glibc takes no more."""
_KEPT = 1 << 30
"""Bytes that may be free at the end of the heap before they go back."""
_M_TRIM_THRESHOLD = -1  # malloc.h
_M_MMAP_THRESHOLD = -3

KEEPING: Mapping[str, str] = MappingProxyType(
    {
        "MALLOC_MMAP_THRESHOLD_": str(_LARGEST_MMAP_THRESHOLD),
        "MALLOC_TRIM_THRESHOLD_": str(_KEPT),
        "MALLOC_ARENA_MAX": "1",
    }
)
"""Environment of a process that evaluates beside its main thread, as a Ray actor does: a thread's own arena is made of
heaps of 64 MB, which go back whatever the thresholds are; and only a process that begins can be told to have none."""


def keep_freed_memory() -> None:
    """Keep in this process what its main thread frees, for its next allocations."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
