"""Half floats: numbers that a file stores as float16 and widens with a Cast when it is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LARGEST = float(np.finfo(np.float16).max)


def nearest_half(value: Array) -> Array:
    """The nearest numbers that float16 has, in the dtype of the value; what is beyond its range becomes its largest."""
    return np.clip(value, -LARGEST, LARGEST).astype(np.float16).astype(value.dtype)


def is_half(value: Array) -> bool:
    """Whether float16 has every one of these float32 numbers."""
    return value.dtype == np.float32 and np.array_equal(nearest_half(value), value)
