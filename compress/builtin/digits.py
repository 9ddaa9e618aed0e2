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
INK = 16  # scikit-learn's pixels range from 0 to 16
VALIDATION = 500  # number of images on which a job scores the original to check the preprocessing
TEST = 400
CLASSES = 10


def digits(seed: int = 0) -> Dataset:
    """Return the digits in three parts drawn by the seed: 897 for training, 500 for validation and 400 for the test.

    Returns:
        Images (N, 32, 32, 1) uint8.
    """
    images, labels = _enlarged()
    order = np.random.default_rng(seed).permutation(len(labels))
    cuts = (VALIDATION, VALIDATION + TEST)
    validation, test, train = (Part(images[rows], labels[rows]) for rows in np.split(order, cuts))
    return Dataset(train, validation, test, CLASSES, digest=f"digits-{SIDE}-{seed}")


def digits_npz(seed: int = 0) -> bytes:
    """Return these digits as the bytes of an .npz file for upload; the same seed gives the same bytes."""
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
