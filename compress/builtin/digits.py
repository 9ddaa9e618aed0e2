"""The handwritten digits that scikit-learn ships (1,797 images of 8x8, UCI), enlarged to 32x32."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.data.dataset import Dataset, Part

SIDE = 32  # pixels
INK = 16  # scikit-learn's pixels count 0..16
VALIDATION = 500  # images: what a job scores an original on before it believes the preprocessing
TEST = 400
CLASSES = 10


def digits(seed: int = 0) -> Dataset:
    """The digits in three parts that the seed decides: 897 to train on, 500 and 400 to judge by.

    Returns:
        Images (N, 32, 32, 1) uint8.
    """
    images, labels = _enlarged()
    order = np.random.default_rng(seed).permutation(len(labels))
    cuts = (VALIDATION, VALIDATION + TEST)
    validation, test, train = (Part(images[rows], labels[rows]) for rows in np.split(order, cuts))
    return Dataset(train, validation, test, CLASSES, digest=f"digits-{SIDE}-{seed}")


def digits_npz(seed: int = 0) -> bytes:
    """The same as the bytes of an .npz, as a user would upload it; the same seed gives the same bytes."""
    dataset = digits(seed)
    names = {"train": "train", "validation": "val", "test": "test"}
    arrays: dict[str, NDArray[Any]] = {}
    for name, suffix in names.items():
        arrays[f"x_{suffix}"] = dataset.part(name).images
        arrays[f"y_{suffix}"] = dataset.part(name).labels
    return _npz(arrays)


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


@cache
def _enlarged() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    raw = load_digits()
    small = np.round(raw.images * (255 / INK)).astype(np.uint8)
    size = (SIDE, SIDE)
    large = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in small]
    return np.stack(large)[..., np.newaxis], raw.target.astype(np.int64)
