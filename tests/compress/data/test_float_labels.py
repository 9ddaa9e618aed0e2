"""Labels that are arrays of floats: read if an installed task asks for them, else refused as no class numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.data.dataset import Part, inspect_dataset, load_dataset
from compress.data.split import draw
from compress.errors import InvalidInput

PAIRS = """
import numpy as np
from compress.errors import InvalidInput
from compress.task import Task

class Pairs(Task):
    name, summary, metric = "pairs", "Two numbers an image.", "accuracy"

    def targets(self, labels, images, part):
        if labels.values.shape != (images, 2):
            raise InvalidInput(labels.where, labels.values.shape, "no pairs")
        return labels.values.astype(np.float32)

    def check(self, outputs, scored, targets, model=None): ...
    def score(self, outputs, targets): ...
    def loss(self, outputs, targets, taught=None, reduction="mean"): ...
    def chance(self, targets, seen): ...

TASK = Pairs()
"""


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of another distribution that takes two floats an image."""
    (tmp_path / "pairs_task.py").write_text(PAIRS)
    info = tmp_path / "pairs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pairs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[netlathe.tasks]\npairs = pairs_task:TASK\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def file(folder: Path, **changes: Any) -> Path:
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.integers(0, 256, (40, 4, 4, 1), np.uint8), "y_train": rng.uniform(size=(40, 2))}
    np.savez(folder / "data.npz", allow_pickle=False, **{**arrays, **changes})
    return folder / "data.npz"


def test_without_a_task_that_takes_them_they_are_no_class_numbers(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="labels of train must be one class number per image") as caught:
        inspect_dataset(file(tmp_path))
    assert (caught.value.field, caught.value.value) == ("y_train", (40, 2))


@pytest.mark.usefixtures("pairs")
def test_an_upload_takes_what_any_task_can_read(tmp_path: Path) -> None:
    path, cache = file(tmp_path), tmp_path / "cache"
    found = inspect_dataset(path, cache=cache)
    assert (found.classes, found.target_shape, found.class_names) == (0, (2,), ())
    copies = set(cache.iterdir())
    data = load_dataset(path, cache=cache, task="pairs")
    assert copies <= set(cache.iterdir())
    assert (data.targets.classes, data.targets.shape, data.train.labels.dtype) == (0, (2,), np.float32)
    assert len(data.train) + len(data.validation) + len(data.test) == 40
    with pytest.raises(InvalidInput, match="labels of train must be one class number per image"):
        load_dataset(path, cache=cache)


@pytest.mark.usefixtures("pairs")
def test_what_no_task_can_read_is_refused_as_ever(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="labels of train must be integers from 0"):
        inspect_dataset(file(tmp_path, y_train=np.full(40, 0.5)))


@pytest.mark.usefixtures("pairs")
def test_class_numbers_stay_class_numbers_whatever_else_is_installed(tmp_path: Path) -> None:
    found = inspect_dataset(file(tmp_path, y_train=np.arange(40) % 3))
    assert (found.classes, found.target_shape) == (3, ())


@pytest.mark.usefixtures("pairs")
def test_a_label_that_is_not_finite_is_counted_and_named(tmp_path: Path) -> None:
    labels = np.zeros((40, 2))
    labels[3, 1] = labels[5, 0] = np.nan
    with pytest.raises(InvalidInput, match=r"2 labels of train are NaN or infinite, the first at \(3, 1\)") as caught:
        load_dataset(file(tmp_path, y_train=labels), task="pairs")
    assert caught.value.field == "y_train"


def test_a_part_has_finite_labels_one_an_image() -> None:
    images = np.zeros((3, 2, 2, 1), np.uint8)
    assert len(Part(images, np.zeros((3, 2), np.float32))) == 3
    for wrong in (np.zeros((2, 2), np.float32), np.full((3, 2), np.nan, np.float32), np.zeros((3, 2))):
        with pytest.raises(InvalidInput):
            Part(images, wrong)


def test_parts_are_drawn_by_seed_without_classes() -> None:
    labels = np.random.default_rng(0).uniform(size=(100, 2)).astype(np.float32)
    found = draw(labels, ("validation", "test"), 3)
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(100))
    assert all((found[part] == again).all() for part, again in draw(labels, ("validation", "test"), 3).items())
    assert not np.array_equal(found["validation"], draw(labels, ("validation",), 4)["validation"])
