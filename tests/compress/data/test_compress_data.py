"""Data sets: the three formats, the parts that are drawn, the decoded copies, and everything that is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import class_folders, labels, pixels, png, pngs, write_npz, write_parquet, write_zip
from patience import PATIENCE_S

from compress.builtin.digits import digits, digits_npz
from compress.data.dataset import Dataset, check_fits, inspect_dataset, load_dataset
from compress.data.decoded import once
from compress.data.formats.source import Limits
from compress.data.preprocessing import Preprocessing
from compress.errors import InvalidInput


def refused(path: Path, **settings: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        load_dataset(path, **settings)
    return caught.value


def same(one: Dataset, other: Dataset) -> bool:
    parts = ("train", "validation", "test")
    return all(
        np.array_equal(one.part(p).images, other.part(p).images)
        and np.array_equal(one.part(p).labels, other.part(p).labels)
        for p in parts
    )


# --- .npz


def test_npz_with_all_parts_comes_back_as_it_was(tmp_path: Path) -> None:
    arrays = {"x_val": pixels(9, seed=1), "y_val": labels(9), "x_test": pixels(6, seed=2), "y_test": labels(6)}
    dataset = load_dataset(write_npz(tmp_path / "a.npz", **arrays))
    np.testing.assert_array_equal(dataset.train.images, pixels(30))
    np.testing.assert_array_equal(dataset.validation.images, arrays["x_val"])
    np.testing.assert_array_equal(dataset.test.labels, labels(6))
    assert (dataset.classes, dataset.image_shape, dataset.drawn) == (3, (8, 6, 3), ())


@pytest.mark.parametrize(
    ("stored", "layout", "shape"),
    [
        (pixels(30, (3, 8, 6)), None, (8, 6, 3)),
        (pixels(30, (8, 6)), None, (8, 6, 1)),
        (pixels(30, (1, 8, 6)), None, (8, 6, 1)),
        (pixels(30, (3, 8, 3)), "NCHW", (8, 3, 3)),
        (pixels(30, (3, 8, 3)), "NHWC", (3, 8, 3)),
        (np.asfortranarray(pixels(30)), None, (8, 6, 3)),
        (pixels(30).astype(np.float32), None, (8, 6, 3)),
    ],
)
def test_npz_layouts(tmp_path: Path, stored: Any, layout: str | None, shape: tuple[int, ...]) -> None:
    dataset = load_dataset(write_npz(tmp_path / "a.npz", x_train=stored), layout=layout)
    assert dataset.image_shape == shape
    assert dataset.train.images.dtype == stored.dtype
    channels_last = stored if stored.ndim == 4 and stored.shape[1:] == shape else stored.reshape(30, -1)
    if channels_last.ndim == 4:  # drawn parts are copies of rows, so every row must be one of the file's
        assert {row.tobytes() for row in dataset.train.images} <= {row.tobytes() for row in channels_last}


def test_a_channels_first_image_is_transposed_and_not_reshaped(tmp_path: Path) -> None:
    images = pixels(30, (3, 8, 6))
    dataset = load_dataset(write_npz(tmp_path / "a.npz", x_train=images, x_val=images, y_val=labels(30)))
    np.testing.assert_array_equal(dataset.validation.images, images.transpose(0, 2, 3, 1))


def test_the_models_input_tells_layouts_apart(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", x_train=pixels(30, (4, 9, 5)))
    assert refused(path).field == "layout"
    assert load_dataset(path, input_shape=(4, 9, 5)).image_shape == (9, 5, 4)
    assert load_dataset(path, input_shape=(5, 4, 9)).image_shape == (4, 9, 5)


@pytest.mark.parametrize(
    ("arrays", "settings", "field"),
    [
        ({"x_train": None}, {}, "x_train"),
        ({"y_train": None}, {}, "y_train"),
        ({"x_val": pixels(3)}, {}, "y_val"),
        ({"y_train": labels(29)}, {}, "y_train"),
        ({"y_train": np.zeros((30, 3), np.int64)}, {}, "y_train"),
        ({"y_train": labels(30) - 1}, {}, "y_train"),
        ({"y_train": labels(30) + 0.5}, {}, "y_train"),
        ({"y_train": labels(30).astype(float)}, {}, "y_train"),
        ({"y_train": np.array(["a", "b", "c"] * 10)}, {}, "y_train"),
        ({"y_train": np.full(30, 1)}, {}, "y_train"),
        ({"y_train": labels(30) + 2**40}, {}, "y_train"),
        ({}, {"classes": 2}, "y_train"),
        ({"x_test": pixels(3), "y_test": np.array([0, 1, 7])}, {}, "y_test"),
        ({"x_train": pixels(0), "y_train": labels(0)}, {}, "y_train"),
        ({"x_train": pixels(3), "y_train": labels(3)}, {}, "train"),
        ({"x_train": pixels(30, (48,))}, {}, "x_train"),
        ({"x_train": pixels(30, (0, 6, 3))}, {}, "x_train"),
        ({"x_train": pixels(30).astype(np.float64)}, {}, "x_train"),
        ({"x_train": pixels(30).astype(">f4")}, {}, "x_train"),
        ({"x_test": pixels(3, (9, 6, 3)), "y_test": labels(3)}, {}, "x_test"),
        ({"x_test": pixels(3).astype(np.float32), "y_test": labels(3)}, {}, "x_test"),
        ({"x_train": pixels(30, (3, 8, 3))}, {}, "layout"),
        ({"x_train": pixels(30, (5, 8, 5))}, {}, "layout"),
        ({}, {"layout": "NHW"}, "layout"),
        ({}, {"layout": "CHWN"}, "layout"),
        ({}, {"limits": Limits(image_pixels=47)}, "x_train"),
        ({}, {"limits": Limits(decoded_bytes=30 * 8 * 6 * 3 - 1)}, "file"),
    ],
)
def test_npz_errors_name_the_array(
    tmp_path: Path, arrays: dict[str, Any], settings: dict[str, Any], field: str
) -> None:
    assert refused(write_npz(tmp_path / "a.npz", **arrays), **settings).field == field


def test_nan_pixels_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    images = np.zeros((30, 8, 6, 3), np.float32)
    images[7, 2, 3, 1] = np.nan
    images[9, 0, 0, 0] = np.inf
    error = refused(write_npz(tmp_path / "a.npz", x_train=images))
    assert "2 pixels of train" in str(error)
    assert error.value == (7, 2, 3, 1)


def test_python_objects_in_an_npz_are_never_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "code-ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    for name in ("x_train", "y_train"):
        evil = np.empty(30, object)
        evil[:] = [Evil()] * 30
        error = refused(write_npz(tmp_path / f"{name}.npz", **{name: evil}))
        assert error.field == name
        assert "Python objects" in str(error)
    assert not marker.exists()


def test_an_npy_header_that_lies_about_its_length(tmp_path: Path) -> None:
    real = write_npz(tmp_path / "real.npz").read_bytes()
    lying = real.replace(b"(30, 8, 6, 3)", b"(99, 8, 6, 3)")
    assert lying != real
    path = tmp_path / "lying.npz"
    path.write_bytes(lying)
    error = refused(path)
    assert error.field in ("x_train", "y_train", "file")


def test_warnings_about_pixels_of_the_wrong_dtype(tmp_path: Path) -> None:
    as_float = write_npz(tmp_path / "f.npz", x_train=pixels(30).astype(np.float32))
    assert any("not divided by 255" in warning for warning in load_dataset(as_float).warnings)
    as_bits = write_npz(tmp_path / "b.npz", x_train=pixels(30) // 128)
    assert any("is divided by 255" in warning for warning in load_dataset(as_bits).warnings)
    assert any("not used: extra" in w for w in load_dataset(write_npz(tmp_path / "e.npz", extra=labels(2))).warnings)


def test_a_class_without_training_images_is_a_warning(tmp_path: Path) -> None:
    dataset = load_dataset(write_npz(tmp_path / "a.npz"), classes=5)
    assert dataset.classes == 5
    assert "classes without a training image: 2, e.g. class 3" in dataset.warnings


# --- Parquet


@pytest.mark.parametrize("column", ["image", "img"])
def test_parquet_splits(tmp_path: Path, column: str) -> None:
    images = pngs(216)  # more than are read at once
    split = ["train", "validation", "train", "train", "test", "train"] * 36
    path = write_parquet(tmp_path / "a.parquet", images, split=split)
    if column == "img":
        import pyarrow.parquet as pq

        pq.write_table(pq.read_table(path).rename_columns(["img", "label", "split"]), path)
    dataset = load_dataset(path)
    chosen = [i for i, part in enumerate(split) if part == "validation"]
    np.testing.assert_array_equal(dataset.validation.images, pixels(216)[chosen])
    np.testing.assert_array_equal(dataset.validation.labels, labels(216)[chosen])
    assert [len(dataset.train), len(dataset.test)] == [144, 36]


def test_parquet_without_split_is_all_train(tmp_path: Path) -> None:
    dataset = load_dataset(write_parquet(tmp_path / "a.parquet", pngs(30)))
    assert dataset.drawn == ("validation", "test")
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [18, 6, 6]


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"label": [None] + [0, 1] * 14 + [1]}, "label"),
        ({"label": ["cat", "dog"] * 15}, "label"),
        ({"label": [0.5, 1.0] * 15}, "label"),
        ({"label": [-1, 1] * 15}, "label"),
        ({"label": [1] * 30}, "label"),
        ({"split": ["train", "holdout"] * 15}, "split"),
        ({"split": ["test"] * 30}, "file"),
        ({"image": [b"bytes"] * 30}, "image"),
    ],
)
def test_parquet_errors_name_the_column(tmp_path: Path, columns: dict[str, Any], field: str) -> None:
    assert refused(write_parquet(tmp_path / "a.parquet", pngs(30), **columns)).field == field


def test_parquet_rows_without_bytes_are_named(tmp_path: Path) -> None:
    error = refused(write_parquet(tmp_path / "a.parquet", [*pngs(12), None, *pngs(5)]))
    assert error.field == "image"
    assert "row 12" in str(error)


def test_parquet_without_its_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"pixels": [1]}), tmp_path / "a.parquet")
    assert refused(tmp_path / "a.parquet").field == "image"


@pytest.mark.parametrize("keep", [10, 400, -9])
def test_a_truncated_parquet_is_refused(tmp_path: Path, keep: int) -> None:
    path = write_parquet(tmp_path / "a.parquet", pngs(30))
    path.write_bytes(path.read_bytes()[:keep])
    assert refused(path).field == "file"


def test_labels_layout_only_means_something_for_npz(tmp_path: Path) -> None:
    assert refused(write_parquet(tmp_path / "a.parquet", pngs(30)), layout="NHWC").field == "layout"


# --- zip


def test_zip_of_class_folders(tmp_path: Path) -> None:
    members = class_folders("train", 30) | class_folders("validation", 6, seed=1) | class_folders("test", 3, seed=2)
    dataset = load_dataset(write_zip(tmp_path / "a.zip", members))
    assert dataset.class_names == ("ant", "bee", "cat")
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [30, 6, 3]
    np.testing.assert_array_equal(dataset.test.images, pixels(3, seed=2))
    assert dataset.test.labels.tolist() == [0, 1, 2]


def test_zip_in_one_folder_with_litter(tmp_path: Path) -> None:
    members = {f"pets/{name}": data for name, data in class_folders("train", 30).items()}
    members |= {"pets/.DS_Store": b"x", "__MACOSX/pets/._a": b"x", "pets/README.md": b"hello"}
    summary = inspect_dataset(write_zip(tmp_path / "a.zip", members))
    assert summary.counts == {"train": 30}
    assert summary.warnings == (
        "hidden and system files ignored: 2, e.g. pets/.DS_Store",
        "1 files that lie outside the folders of the parts were not used, e.g. pets/README.md",
    )


def test_zip_of_parquet_files(tmp_path: Path) -> None:
    files = {
        "data/train-00000-of-00002.parquet": write_parquet(tmp_path / "1", pngs(20)),
        "data/train-00001-of-00002.parquet": write_parquet(tmp_path / "2", pngs(10, seed=1)),
        "data/validation.parquet": write_parquet(tmp_path / "3", pngs(6, seed=2)),
        "test/0.parquet": write_parquet(tmp_path / "4", pngs(3, seed=3)),
    }
    dataset = load_dataset(write_zip(tmp_path / "a.zip", {name: path.read_bytes() for name, path in files.items()}))
    np.testing.assert_array_equal(dataset.train.images, np.concatenate([pixels(20), pixels(10, seed=1)]))
    np.testing.assert_array_equal(dataset.test.images, pixels(3, seed=3))


def test_grey_and_colour_are_read_as_colour_and_alpha_is_dropped(tmp_path: Path) -> None:
    grey = class_folders("train", 28)
    grey["train/ant/grey.png"] = png(pixels(1, (8, 6, 1))[0])
    grey["train/bee/alpha.png"] = png(pixels(1, (8, 6, 4))[0])
    dataset = load_dataset(write_zip(tmp_path / "a.zip", grey))
    assert dataset.image_shape == (8, 6, 3)
    assert any("mixed" in warning for warning in dataset.warnings)


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        ({"validation/dog/1.png": pngs(1)[0]}, "'dog'"),
        ({"train/1.png": pngs(1)[0]}, "not in a folder part/class"),
        ({"train/ant/more/1.png": pngs(1)[0]}, "not in a folder part/class"),
        ({"train/ant/moving.gif": b"GIF89a"}, "moving.gif is not a readable image"),
        ({"train/ant/cut.png": pngs(1)[0][:60]}, "cut.png is not a readable image"),
        ({"train/ant/empty.png": b""}, "empty.png is not a readable image"),
    ],
)
def test_zip_errors_name_the_member(tmp_path: Path, extra: dict[str, bytes], match: str) -> None:
    path = write_zip(tmp_path / "a.zip", class_folders("train", 30) | extra)
    with pytest.raises(InvalidInput, match=match):
        load_dataset(path)


def test_sixteen_bits_a_channel_are_refused(tmp_path: Path) -> None:
    deep = png(pixels(1, (8, 6, 1))[0].astype(np.uint16) * 256)
    path = write_zip(tmp_path / "a.zip", class_folders("train", 30) | {"train/ant/deep.png": deep})
    with pytest.raises(InvalidInput, match="more than 8 bits"):
        load_dataset(path)


def test_images_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    members = class_folders("train", 29) | {"train/bee/x.png": png(pixels(1, (20, 10, 3))[0])}
    path = write_zip(tmp_path / "a.zip", members)
    assert refused(path).field == "preprocessing.size"
    assert inspect_dataset(path).image_shape is None
    assert load_dataset(path, preprocessing=Preprocessing(size=(4, 5))).image_shape == (4, 5, 3)


def test_nothing_that_is_no_data_set(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"PK\x05\x06" + bytes(18), b"PK\x03\x04 not a zip", b"PAR1"):
        path = tmp_path / "x"
        path.write_bytes(content)
        assert refused(path).field == "file"


# --- parts, copies, fit


def test_parts_are_drawn_by_seed_from_every_class_and_never_overlap(tmp_path: Path) -> None:
    images = np.arange(300, dtype=np.float32).reshape(300, 1, 1, 1)  # each image is its own number
    path = write_npz(tmp_path / "a.npz", x_train=images, y_train=labels(300))
    one, again, other = (load_dataset(path, seed=seed, layout="NHWC") for seed in (0, 0, 1))
    assert same(one, again)
    assert not same(one, other)
    assert one.digest == again.digest != other.digest
    numbers = np.concatenate([part.images.ravel() for part in (one.train, one.validation, one.test)])
    assert sorted(numbers.tolist()) == list(range(300))
    assert np.bincount(one.validation.labels).tolist() == [20, 20, 20]
    assert all(np.array_equal(part.images.ravel().astype(int) % 3, part.labels) for part in (one.train, one.test))
    assert sum("drawn from train" in warning for warning in one.warnings) == 2


def test_a_part_that_is_there_is_not_touched_by_the_seed(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", x_val=pixels(9), y_val=labels(9), x_test=pixels(3), y_test=labels(3))
    assert load_dataset(path, seed=0).digest == load_dataset(path, seed=1).digest


def test_the_decoded_copy_is_made_once_and_mapped(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", class_folders("train", 30))
    cache = tmp_path / "cache"
    digest = "0" * 64
    first = load_dataset(path, cache=cache, digest=digest)
    path.unlink()  # only the copy is left
    second = load_dataset(path, cache=cache, digest=digest)
    assert same(first, second)
    assert isinstance(second.train.images, np.memmap)
    assert not second.train.images.flags.writeable
    native = load_dataset(
        path, cache=cache, digest=digest, preprocessing=Preprocessing(size=(8, 6)), input_shape=(3, 8, 6)
    )
    assert same(first, native)  # images have that size already: no second copy
    assert not list(cache.glob(".writing-*"))


def test_a_refused_file_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    refused(write_npz(tmp_path / "a.npz", y_train=labels(29)), cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_two_writers_of_one_copy_both_succeed(tmp_path: Path) -> None:
    barrier = threading.Barrier(2, timeout=PATIENCE_S)
    target = tmp_path / "made"
    failures: list[BaseException] = []

    def write(directory: Path) -> None:
        barrier.wait()
        (directory / "content").write_text("same")

    def run() -> None:
        try:
            once(target, write)
        except BaseException as error:  # handed to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not failures
    assert (target / "content").read_text() == "same"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_sample_is_by_seed_and_without_repetition() -> None:
    dataset = digits(0)
    one, again, other = (dataset.sample("train", 64, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.images, again.images)
    assert not np.array_equal(one.images, other.images)
    assert len(dataset.sample("test", 10_000, 0)) == len(dataset.test)
    with pytest.raises(InvalidInput, match="one of train"):
        dataset.sample("dev", 1, 0)


def test_every_start_of_a_sample_is_a_sample_though_the_file_holds_one_class_after_another(tmp_path: Path) -> None:
    members = {f"train/class{i // 60}/{i:03d}.png": content for i, content in enumerate(pngs(600))}
    dataset = load_dataset(write_zip(tmp_path / "sorted.zip", members))
    for part in ("train", "validation"):
        drawn = dataset.sample(part, 400, seed=0).labels
        assert all(len(set(drawn[:count].tolist())) >= 7 for count in (20, 32, len(drawn) // 2))


def test_digits_are_the_same_from_memory_and_from_their_npz(tmp_path: Path) -> None:
    path = tmp_path / "digits.npz"
    path.write_bytes(digits_npz(3))
    loaded = load_dataset(path)
    assert same(loaded, digits(3))
    assert digits_npz(3) == digits_npz(3)
    assert loaded.image_shape == (32, 32, 1)
    assert set(np.unique(loaded.train.labels)) == set(range(10))
    assert not same(digits(3), digits(4))


@pytest.mark.parametrize(
    ("shape", "settings", "field"),
    [
        ((28, 28, 1), {}, "dataset"),
        ((32, 32, 1), {}, "dataset"),
        (None, {}, "preprocessing.size"),
        ((32, 32, 3), {"size": (28, 28)}, "dataset"),
        ((32, 32, 3), {"mean": (0.1, 0.2)}, "preprocessing.mean"),
    ],
)
def test_data_that_do_not_fit_the_model(
    shape: tuple[int, int, int] | None, settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_fits(shape, Preprocessing(**settings), (3, 32, 32))
    assert caught.value.field == field


def test_data_that_fit_the_model() -> None:
    check_fits((32, 32, 3), Preprocessing(), (3, 32, 32))
    check_fits((500, 375, 3), Preprocessing(size=(32, 32)), (3, 32, 32))
    check_fits(None, Preprocessing(size=(32, 32)), (3, 32, 32))


def test_numbers_are_shown_as_they_were_seen(tmp_path: Path) -> None:
    error = refused(write_npz(tmp_path / "a.npz", y_train=np.where(labels(30) == 2, -5, labels(30))))
    assert error.value == -5
    assert "10 labels" in str(error)
    assert "index 2" in str(error)


@pytest.mark.shared
def test_real_data_sets(shared: Callable[[str], Path]) -> None:
    cifar = load_dataset(shared("cifar10-small.parquet"))
    assert [len(cifar.part(name)) for name in ("train", "validation", "test")] == [10_000, 2_000, 2_000]
    assert (cifar.image_shape, cifar.classes, cifar.drawn, cifar.warnings) == ((32, 32, 3), 10, (), ())
    mnist = load_dataset(shared("mnist10k.npz"))
    assert [len(mnist.part(name)) for name in ("train", "validation", "test")] == [9_000, 1_000, 10_000]
    assert (mnist.image_shape, mnist.classes, mnist.drawn) == ((28, 28, 1), 10, ("validation",))
