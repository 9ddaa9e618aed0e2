"""Split: draw the parts that a data set lacks from its training images, by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.formats.source import PARTS
from compress.errors import InvalidInput

SHARE = 0.1  # share of the training images for each drawn part
ENOUGH = 500  # images: fewer cannot distinguish a network from chance, so a small set gives a larger share,
LARGEST_SHARE = 0.2  # but never a larger share than this


def draw(labels: NDArray[Any], missing: tuple[str, ...], seed: int) -> dict[str, NDArray[np.int64]]:
    """Return the indices, ascending, of each drawn part and of the rest of `train`.

    Every class gives its share, by systematic sampling over the shuffled images of each class in turn. Labels that are
    not class numbers count as one class. The same seed draws the same validation part, whether or not a test part is
    drawn too.

    Args:
        labels: (N, ...) of the training images.
        missing: parts to draw, in the order in which they are drawn.
        seed: seed of the draw.

    Raises:
        InvalidInput: there are too few training images.
    """
    check_enough(len(labels), missing)
    count = drawn_count(len(labels))
    left, numbered = np.arange(len(labels)), labels.ndim == 1 and labels.dtype.kind == "i"
    parts: dict[str, NDArray[np.int64]] = {}
    for number, part in enumerate(missing):
        rng = np.random.default_rng([seed, number])
        shuffled = rng.permutation(left)
        by_class = shuffled[np.argsort(labels[shuffled], kind="stable")] if numbered else shuffled
        start = rng.uniform()
        chosen = by_class[((np.arange(count) + start) * len(left) / count).astype(np.int64)]
        parts[part] = np.sort(chosen)
        left = np.setdiff1d(left, chosen, assume_unique=True)
    return {"train": left, **parts}


def check_enough(images: int, missing: Sequence[str]) -> None:
    """Raise InvalidInput if train has too few images to draw the missing parts from."""
    if missing and drawn_count(images) == 0:
        raise InvalidInput("train", images, f"train has too few images to draw {' and '.join(missing)} from")


def drawn_count(images: int) -> int:
    """Return the number of images that a part drawn from this many training images gets."""
    return int(min(max(images * SHARE, ENOUGH), images * LARGEST_SHARE))


def counts_after_draw(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the number of images in each of PARTS after the missing ones are drawn."""
    drawn = drawn_count(counts["train"])
    after = {part: counts.get(part, drawn) for part in PARTS}
    after["train"] = counts["train"] - drawn * sum(part not in counts for part in PARTS)
    return after
