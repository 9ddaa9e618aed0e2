"""Half floats: numbers that a file stores as float16 and a Cast widens when it is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LARGEST = float(np.finfo(np.float16).max)


def nearest_half(value: Array) -> Array:
    """Return the values rounded to float16, in their own dtype. Values beyond its range become its largest number."""
    return np.clip(value, -LARGEST, LARGEST).astype(np.float16).astype(value.dtype)


def is_half(value: Array) -> bool:
    """Return whether float16 can represent all these float32 numbers exactly."""
    return value.dtype == np.float32 and np.array_equal(nearest_half(value), value)
