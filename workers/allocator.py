"""The C library's allocator, told to keep what an evaluator frees: the next candidate needs it again."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1  # malloc.h
_M_MMAP_THRESHOLD = -3
_LARGEST_MMAP_THRESHOLD = 32 << 20
"""Bytes; glibc takes no more."""
_KEPT = 1 << 30
"""Bytes that may be free at the end of the heap before they go back."""


def keep_freed_memory() -> None:
    """Keep in this process what it frees, for its next allocations; where there is no mallopt (musl, macOS), nothing.

    glibc maps large blocks anew each time and gives back the heap's free end, and activations are such blocks. An
    evaluation of ResNet-20 took 1,000 page faults, 85,000 or 200,000, as a process's first allocations had it, and up
    to 40 % more time with them; two workers of one job differed by that. What is kept is at most what the largest
    candidate needed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
