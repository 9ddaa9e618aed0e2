"""Preprocessing: the formula, its defaults and every value it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress.data.images import resize
from compress.data.preprocessing import Preprocessing, preprocess
from compress.errors import InvalidInput

IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def test_formula_on_uint8_is_pixels_over_255_minus_mean_over_std() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    got = preprocess(images, IMAGENET)
    want = (images / 255.0 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert got.shape == (5, 3, 4, 6)
    np.testing.assert_allclose(got, want.transpose(0, 3, 1, 2), atol=2e-6)


def test_float32_pixels_are_taken_as_they_are_unless_scale_says_otherwise() -> None:
    images = np.linspace(0, 1, 32, dtype=np.float32).reshape(2, 4, 4, 1)
    np.testing.assert_array_equal(preprocess(images, Preprocessing())[:, 0], images[..., 0])
    np.testing.assert_allclose(preprocess(images, Preprocessing(scale=2.0))[:, 0], 2 * images[..., 0])


def test_bgr_turns_the_channels_round_before_mean_and_std() -> None:
    images = np.zeros((1, 2, 2, 3), np.uint8)
    images[..., 0] = 255  # red
    got = preprocess(images, Preprocessing(order="BGR", mean=(0.0, 0.0, 0.5)))
    assert got[0, :, 0, 0].tolist() == [0.0, 0.0, 0.5]


def test_a_read_only_image_is_enough() -> None:
    images = np.zeros((1, 2, 2, 3), np.uint8)
    images.flags.writeable = False
    preprocess(images, IMAGENET)


def test_json_goes_there_and_back() -> None:
    given = {"scale": 0.5, "mean": [1, 2, 3], "std": 2, "order": "BGR", "size": [32, 24], "resize": "stretch"}
    read = Preprocessing.from_json(given)
    assert read == Preprocessing(0.5, (1, 2, 3), (2,), "BGR", (32, 24), "stretch")
    assert Preprocessing.from_json(read.to_json()) == read
    assert Preprocessing.from_json({}) == Preprocessing.from_json({"size": None}) == Preprocessing()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"scale": 0}, "preprocessing.scale"),
        ({"scale": float("inf")}, "preprocessing.scale"),
        ({"scale": 10**400}, "preprocessing.scale"),
        ({"scale": True}, "preprocessing.scale"),
        ({"scale": "1/255"}, "preprocessing.scale"),
        ({"mean": []}, "preprocessing.mean"),
        ({"mean": [0.1, None]}, "preprocessing.mean"),
        ({"mean": {"r": 1}}, "preprocessing.mean"),
        ({"std": [1, 0, 1]}, "preprocessing.std"),
        ({"std": float("nan")}, "preprocessing.std"),
        ({"std": 1e-320}, "preprocessing.std"),
        ({"scale": 1e-320}, "preprocessing.scale"),
        ({"scale": 1e20, "std": [1, 1e-20]}, "preprocessing.std"),
        ({"scale": 1e-20, "std": 1e20}, "preprocessing.std"),
        ({"mean": 1e20, "std": 1e-20}, "preprocessing.std"),
        ({"mean": [1, 2, 3], "std": [1, 2]}, "preprocessing.std"),
        ({"order": "rgb"}, "preprocessing.order"),
        ({"order": ["RGB"]}, "preprocessing.order"),
        ({"size": 32}, "preprocessing.size"),
        ({"size": [32, 0]}, "preprocessing.size"),
        ({"size": [32.0, 32]}, "preprocessing.size"),
        ({"size": [32, 1_000_000]}, "preprocessing.size"),
        ({"resize": "longer"}, "preprocessing.resize"),
        ({"crop": "left"}, "preprocessing.crop"),
        ({"scales": 1}, "preprocessing.scales"),
        ([1], "preprocessing"),
        (None, "preprocessing"),
    ],
)
def test_wrong_values_name_their_field(given: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Preprocessing.from_json(given)
    assert caught.value.field == field


def test_a_std_that_float32_cannot_divide_by_is_named_with_its_value() -> None:
    with pytest.raises(InvalidInput, match="numbers from 1e-30") as caught:
        Preprocessing.from_json({"std": [0.5, 1e-320, 0.5]})
    assert caught.value.value == 1e-320


@pytest.mark.parametrize(
    "extreme", [{"std": 1e-29}, {"std": 1e29}, {"scale": 1e-29}, {"scale": 1e29}, {"mean": 1e28, "std": 0.1}]
)
def test_what_is_accepted_gives_finite_inputs_that_differ(extreme: dict[str, Any]) -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    got = preprocess(images, Preprocessing.from_json(extreme))
    assert np.isfinite(got).all()
    assert "mean" in extreme or got.max() > got.min()


@pytest.mark.parametrize(
    ("shape", "settings"),
    [((1, 2, 2, 1), {"order": "BGR"}), ((1, 2, 2, 1), {"mean": (1.0, 2.0, 3.0)}), ((1, 2, 2, 3), {"std": (1.0, 2.0)})],
)
def test_settings_that_do_not_fit_the_channels_are_refused(shape: tuple[int, ...], settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="channel"):
        preprocess(np.zeros(shape, np.uint8), Preprocessing(**settings))


def test_images_that_were_not_resized_are_refused() -> None:
    with pytest.raises(InvalidInput, match="resized"):
        preprocess(np.zeros((1, 8, 8, 3), np.uint8), Preprocessing(size=(4, 4)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_shorter_keeps_the_middle_and_the_aspect(dtype: type) -> None:
    image = np.zeros((10, 30, 3), dtype)
    image[:, 8:22] = 200  # the centred square that `shorter` keeps, and what the filter sees beside it
    got = resize(image, Preprocessing(size=(5, 5)))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, np.full((5, 5, 3), 200, dtype))


def test_stretch_keeps_everything() -> None:
    image = np.zeros((10, 30, 1), np.uint8)
    image[:, 15:] = 100
    got = resize(image, Preprocessing(size=(10, 10), resize="stretch"))
    assert got[:, :4].max() == 0
    assert got[:, 6:].min() == 100


@pytest.mark.parametrize(("height", "width", "size"), [(7, 3, (5, 5)), (3, 7, (224, 224)), (101, 33, (32, 31))])
def test_any_size_to_any_size(height: int, width: int, size: tuple[int, int]) -> None:
    image = np.full((height, width, 3), 7, np.uint8)
    got = resize(image, Preprocessing(size=size))
    assert got.shape == (*size, 3)
    assert set(got.ravel()) == {7}
