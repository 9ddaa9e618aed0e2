"""Data sets as people really have them: other names for the parts, system files, test labels kept back, numbers as
class names, photos that the camera was turned for."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import class_folders, labels, pixels, png, pngs, write_npz, write_parquet, write_zip
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from compress.data.dataset import inspect_dataset, load_dataset
from compress.data.preprocessing import Preprocessing
from compress.errors import InvalidInput

VALIDATION = ("valid", "val", "dev", "Validation")


def warned(warnings: tuple[str, ...], *parts: str) -> bool:
    return any(all(part in warning for part in parts) for warning in warnings)


# --- names of parts


@pytest.mark.parametrize("folder", VALIDATION)
def test_folders_of_validation_by_other_names(tmp_path: Path, folder: str) -> None:
    members = class_folders("train", 30) | class_folders(folder, 6, seed=1) | class_folders("test", 3, seed=2)
    dataset = load_dataset(write_zip(tmp_path / "a.zip", members))
    assert (len(dataset.validation), dataset.drawn, dataset.warnings) == (6, (), ())
    np.testing.assert_array_equal(np.sort(dataset.validation.images, 0), np.sort(pixels(6, seed=1), 0))


@pytest.mark.parametrize("split", VALIDATION)
def test_splits_of_validation_by_other_names(tmp_path: Path, split: str) -> None:
    column = ["train", split, "train", "train", "test", "train"] * 5
    dataset = load_dataset(write_parquet(tmp_path / "a.parquet", pngs(30), split=column))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test), dataset.drawn) == (20, 5, 5, ())


@pytest.mark.parametrize("suffix", ["valid", "dev", "validation"])
def test_arrays_of_validation_by_other_names(tmp_path: Path, suffix: str) -> None:
    given = {f"x_{suffix}": pixels(9, seed=1), f"y_{suffix}": labels(9)}
    dataset = load_dataset(write_npz(tmp_path / "a.npz", **given))
    np.testing.assert_array_equal(dataset.validation.images, pixels(9, seed=1))
    assert not warned(dataset.warnings, "not used")


def test_tables_of_validation_by_other_names(tmp_path: Path) -> None:
    files = {
        "data/train-00000.parquet": write_parquet(tmp_path / "1", pngs(30)),
        "data/valid-00000.parquet": write_parquet(tmp_path / "2", pngs(6, seed=1)),
    }
    dataset = load_dataset(write_zip(tmp_path / "a.zip", {name: path.read_bytes() for name, path in files.items()}))
    assert (len(dataset.train) + len(dataset.test), len(dataset.validation)) == (30, 6)


def test_two_arrays_that_are_both_validation_are_refused(tmp_path: Path) -> None:
    given = {"x_val": pixels(9), "y_val": labels(9), "x_valid": pixels(9), "y_valid": labels(9)}
    with pytest.raises(InvalidInput, match=r"x_val and ._valid are both validation"):
        load_dataset(write_npz(tmp_path / "a.npz", **given))


def test_files_of_no_part_are_counted(tmp_path: Path) -> None:
    members = class_folders("train", 30) | class_folders("holdout", 7, seed=1)
    warnings = inspect_dataset(write_zip(tmp_path / "a.zip", members)).warnings
    assert warned(warnings, "7 files that lie outside the folders of the parts were not used", "holdout/ant")


def test_tables_and_files_of_no_part_are_counted(tmp_path: Path) -> None:
    table = write_parquet(tmp_path / "1", pngs(30)).read_bytes()
    members = {"train.parquet": table, "unsupervised.parquet": table, "README.md": b"hello"}
    summary = inspect_dataset(write_zip(tmp_path / "a.zip", members))
    assert summary.counts == {"train": 30}
    assert warned(summary.warnings, "2 files", "not used")


# --- files of systems


def test_hidden_and_system_files_are_passed_over_with_a_count(tmp_path: Path) -> None:
    members = {f"My Data/{name}": data for name, data in class_folders("train", 30).items()}
    members |= {f"__MACOSX/My Data/train/ant/._{i:03}.png": b"x" for i in range(30)}
    system = ("train/ant/desktop.ini", "train/bee/Thumbs.db", "train/cat/.DS_Store", ".git/config", "train/.cache/a/b")
    members |= {f"My Data/{name}": b"x" for name in system}
    summary = inspect_dataset(write_zip(tmp_path / "a.zip", members))
    assert summary.counts == {"train": 30}
    assert [warning for warning in summary.warnings if "hidden and system files" in warning] == [
        "hidden and system files ignored: 35, e.g. __MACOSX/My Data/train/ant/._000.png"
    ]


def test_text_beside_the_images_is_passed_over_with_a_count(tmp_path: Path) -> None:
    members = class_folders("train", 30) | {"train/ant/labels.csv": b"a,b", "train/bee/notes.TXT": b"hello"}
    summary = inspect_dataset(write_zip(tmp_path / "a.zip", members))
    assert summary.counts == {"train": 30}
    assert summary.warnings == (
        "2 files that lie beside the images and hold text were not used, e.g. train/ant/labels.csv",
    )


# --- labels that are kept back


def kept_back(part: str, label: Any) -> dict[str, Any]:
    split = ["train", "train", "validation", "test", "train", "validation"] * 5
    given = [label if name == part else i // 6 % 3 for i, name in enumerate(split)]
    return {"split": split, "label": given}


@pytest.mark.parametrize("label", [-1, None])
def test_a_test_part_without_labels_is_not_used(tmp_path: Path, label: int | None) -> None:
    path = write_parquet(tmp_path / "a.parquet", pngs(30), **kept_back("test", label))
    summary = inspect_dataset(path)
    assert summary.counts == {"train": 15, "validation": 10}
    assert "5 images of test have no label and were not used" in summary.warnings
    dataset = load_dataset(path)
    assert (dataset.drawn, len(dataset.train) + len(dataset.test)) == (("test",), 15)


def test_a_test_array_without_labels_is_not_used(tmp_path: Path) -> None:
    marked = load_dataset(write_npz(tmp_path / "a.npz", x_test=pixels(6), y_test=np.full(6, -1)))
    assert warned(marked.warnings, "6 images of test have no label")
    alone = load_dataset(write_npz(tmp_path / "b.npz", x_test=pixels(6)))
    assert warned(alone.warnings, "x_test has no labels and was not used")
    assert marked.drawn == alone.drawn == ("validation", "test")


def test_a_test_folder_without_classes_is_not_used(tmp_path: Path) -> None:
    members = class_folders("train", 30) | {f"test/{i}.png": data for i, data in enumerate(pngs(4))}
    summary = inspect_dataset(write_zip(tmp_path / "a.zip", members))
    assert summary.counts == {"train": 30}
    assert warned(summary.warnings, "4 files that lie in test but in no class folder were not used")


@pytest.mark.parametrize("label", [-1, None, 2**40])
@pytest.mark.parametrize("part", ["train", "validation"])
def test_bad_labels_elsewhere_name_the_part(tmp_path: Path, part: str, label: int | None) -> None:
    path = write_parquet(tmp_path / "a.parquet", pngs(30), **kept_back(part, label))
    with pytest.raises(InvalidInput, match=f"labels of {part}") as caught:
        load_dataset(path)
    assert caught.value.field == "label"


def test_a_test_part_with_some_labels_is_refused_by_name(tmp_path: Path) -> None:
    columns = kept_back("test", 1)
    columns["label"][3] = -1
    with pytest.raises(InvalidInput, match=r"1 labels of test are outside .*no label"):
        load_dataset(write_parquet(tmp_path / "a.parquet", pngs(30), **columns))


# --- class folders that are numbers


def test_class_folders_that_are_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    members = class_folders("train", 33, [str(number) for number in range(11)])
    path = write_zip(tmp_path / "a.zip", members)
    dataset = load_dataset(path)
    assert dataset.class_names == tuple(str(number) for number in range(11))
    for image, label in zip(dataset.train.images, dataset.train.labels, strict=True):
        number = next(int(name.split("/")[1]) for name, data in members.items() if data == png(image))
        assert number == label
    assert warned(inspect_dataset(path).warnings, "sorted as such (0, 1, 2, ..., 10)")


def test_class_folders_that_are_not_all_numbers_stay_sorted_as_text(tmp_path: Path) -> None:
    dataset = load_dataset(write_zip(tmp_path / "a.zip", class_folders("train", 30, ["10", "9", "other"])))
    assert dataset.class_names == ("10", "9", "other")
    assert not warned(dataset.warnings, "sorted")


def test_padded_numbers_say_nothing(tmp_path: Path) -> None:
    summary = inspect_dataset(write_zip(tmp_path / "a.zip", class_folders("train", 30, ["00", "01", "10"])))
    assert (summary.class_names, summary.warnings) == (("00", "01", "10"), ())


# --- photos that the camera was turned for


def photo(image: NDArray[np.uint8], orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    files = [photo(image, orientation, kind) for image in pixels(30)]
    upright = np.stack([np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file)))) for file in files])
    folders = {f"train/{'ab'[i % 2]}/{i:02}.x": file for i, file in enumerate(files)}
    folders |= {f"val/{'ab'[i >= 15]}/{i:02}.x": file for i, file in enumerate(files)}
    split = ["train"] * 15 + ["validation"] * 15
    zipped = load_dataset(write_zip(tmp_path / "a.zip", folders))
    table = load_dataset(write_parquet(tmp_path / "a.parquet", files, split=split))
    np.testing.assert_array_equal(zipped.validation.images, upright)
    np.testing.assert_array_equal(table.validation.images, upright[15:])
    assert warned(zipped.warnings, "turned upright", ": 60") == (orientation != 1)


def test_photos_held_both_ways_differ_in_size(tmp_path: Path) -> None:
    images = pixels(30)
    files = [photo(image, 6 if i % 2 else 1, "PNG") for i, image in enumerate(images)]
    path = write_parquet(tmp_path / "a.parquet", files)
    assert inspect_dataset(path).image_shape is None
    assert load_dataset(path, preprocessing=Preprocessing(size=(5, 5))).image_shape == (5, 5, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning:PIL")
@pytest.mark.parametrize("exif", [b"Exif\x00\x00no TIFF at all", b"Exif\x00\x00II*\x00\xff\xff\xff\xff"])
def test_exif_data_that_cannot_be_read_turn_nothing(tmp_path: Path, exif: bytes) -> None:
    file = io.BytesIO()
    Image.fromarray(pixels(1)[0]).save(file, "JPEG", exif=exif)
    folders = class_folders("train", 30) | {"train/ant/photo.jpg": file.getvalue()}
    summary = inspect_dataset(write_zip(tmp_path / "a.zip", folders))
    assert (summary.image_shape, warned(summary.warnings, "upright")) == ((8, 6, 3), False)
