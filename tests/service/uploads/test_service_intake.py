"""Intake: every bad network and data set, as the service sees them."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from service_networks import classifier, model_of

from compress.builtin.digits import digits_npz
from compress.data.dataset import cache_beside, load_dataset
from compress.evidence import Evidence
from compress.importing.normalise import load_network
from compress.scheme import Scheme
from service.errors import InvalidInput
from service.uploads.intake import check_dataset, check_model
from service.uploads.sandbox import MIB, Limits

LIMITS = Limits(memory_bytes=4 * 1024 * MIB, cpu_s=120, wall_s=300)


def refused(path: Path, name: str = "model.onnx", **preprocessing: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        check_model(path, name, preprocessing, LIMITS)
    return caught.value


class Evil:
    """Unpickled, it makes a file: the proof that code ran."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


# --- networks


def test_a_good_network_is_described(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(classifier())
    found = check_model(path, "model.onnx", {"scale": 0.5}, LIMITS)
    assert found["input_shape"] == [3, 16, 16]
    assert found["outputs"] == [{"name": "logits", "shape": [10], "role": "scored"}]
    assert found["macs"] > 0
    assert found["size_bytes"] > 4 * found["parameters"] > 0
    prunable = [group for group in found["groups"] if group["prunable"]]
    assert prunable
    assert all(group["width"] > 0 and group["layers"] for group in prunable)
    assert not found["warnings"]


def test_a_file_of_halves_counts_as_no_more_than_it_is(tmp_path: Path) -> None:
    whole, half = tmp_path / "whole.onnx", tmp_path / "half.onnx"
    whole.write_bytes(classifier())
    operator = Scheme.of([("fp16", {})]).bind({"fp16": "fp16"})
    half.write_bytes(operator.rewrite(load_network(whole), Evidence()).save())
    halves = check_model(half, "half.onnx", {}, LIMITS)
    wholes = check_model(whole, "whole.onnx", {}, LIMITS)
    assert halves["parameters"] == wholes["parameters"]
    assert halves["size_bytes"] == half.stat().st_size < 0.7 * wholes["size_bytes"]


@pytest.mark.sandbox
def test_pickles_in_every_wrapping_are_refused_and_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "code-ran"
    payload = pickle.dumps(Evil(marker))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3")
    protocol_0 = pickle.dumps(Evil(marker), protocol=0)
    files = {
        "evil.pt": zipped.getvalue(),
        "evil.pt2": zipped.getvalue(),
        "evil.onnx": payload,
        "hidden.onnx": zipped.getvalue(),
        "old.pth": protocol_0,
        "old.onnx": protocol_0,
        "named.pkl": classifier(),
    }
    for name, content in files.items():
        path = tmp_path / "upload"
        path.write_bytes(content)
        error = refused(path, name)
        assert error.field == "file", name
        if name != "old.onnx":  # text pickles begin like anything: they are merely no ONNX
            assert "export it on your own machine" in error.message, name
            assert "dynamo=True, external_data=False)" in error.message, name
            assert error.value == name
    assert not marker.exists()


def zip_of(*names: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return written.getvalue()


@pytest.mark.parametrize(
    ("names", "file_name", "match"),
    [
        (("x_train.npy", "y_train.npy"), "model.onnx", r"NumPy archive \(\.npz\).*data set"),
        (("x_train.npy",), "data.npz", r"NumPy archive"),
        (("train/0/a.png",), "photos.zip", "zip that begins with 'train/0/a.png'.*if it contains an .onnx file"),
        (("model.onnx",), "model.zip", "zip that begins with 'model.onnx'"),
        ((), "model.onnx", "empty zip, not ONNX: upload the .onnx file itself"),
        (("archive/data/weights/weight_0",), "model.onnx", "a zip, as .pt, .pt2"),
        (("metadata.json",), "model.keras", "TensorFlow file.*tf2onnx"),
    ],
)
def test_a_zip_is_called_what_it_is(tmp_path: Path, names: tuple[str, ...], file_name: str, match: str) -> None:
    path = tmp_path / "upload"
    path.write_bytes(zip_of(*names))
    error = refused(path, file_name)
    assert re.search(match, error.message), error.message
    assert ("pickle" in error.message) == any(name.startswith("archive/") for name in names)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "empty"),
        (b"\x93NUMPY\x01\0", "NumPy array"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"PK\x03\x04", "a zip that begins with ''"),
        (b"hello, I am no network at all", "not a readable ONNX|no graph"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        (b"\x10\0\0\0\0\0\0\0{}", "safetensors"),
        (b"\x1f\x8b\x08", "gzip"),
        (classifier()[:2000], "truncated"),
        (classifier()[:-1000], "truncated"),
        (b"\xff" * 5000, "not a readable ONNX"),
    ],
)
def test_files_that_are_no_onnx(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=match):
        check_model(path, "model.onnx", {}, LIMITS)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "weights.bin"])
def test_external_data_are_refused_wherever_they_lie(tmp_path: Path, location: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    model = onnx.load_model_from_string(classifier())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    error = refused(path)
    assert "external data" in error.message
    assert error.value == tensor.name


def test_two_image_inputs_are_refused(tmp_path: Path) -> None:
    add = [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["logits"])]
    path = tmp_path / "model.onnx"
    path.write_bytes(model_of(add, {"a": (3, 8, 8), "b": (3, 8, 8)}, (3, 1, 1)))
    error = refused(path)
    assert error.field == "inputs"
    assert error.value == ["a", "b"]


def test_an_input_that_is_no_image_is_refused(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((5, 3), np.float32), "w")
    path = tmp_path / "model.onnx"
    path.write_bytes(model_of([helper.make_node("MatMul", ["x", "w"], ["logits"])], {"x": (5,)}, (3,), [weight]))
    error = refused(path)
    assert error.field == "inputs"
    assert error.value == [5]


def test_an_opset_of_the_future_is_refused(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(classifier())
    model.opset_import[0].version = 9999
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert refused(path).field == "file"


def test_preprocessing_that_does_not_fit_the_network(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(classifier())
    assert refused(path, mean=[0.1, 0.2], std=[1, 1]).field == "preprocessing.mean"
    assert refused(path, size=[32, 32]).field == "preprocessing.size"
    assert refused(path, scal=1).field == "preprocessing.scal"


def test_a_random_node_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(classifier(odd_op="Bernoulli"))
    error = refused(path)
    assert "node 'act0' (Bernoulli) is random" in error.message
    assert (error.field, error.value) == ("file", "act0")


def test_an_op_without_a_row_freezes_its_channels_and_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(classifier(odd_op="Celu"))
    found = check_model(path, "model.onnx", {}, LIMITS)
    assert any("no rule for Celu" in warning for warning in found["warnings"])
    frozen = [group for group in found["groups"] if group["reason"]]
    assert any("Celu" in group["reason"] for group in frozen)
    assert any(group["prunable"] for group in found["groups"])


@pytest.mark.shared
@pytest.mark.parametrize("name", ["resnet20-cifar10", "resnet20-cifar10-bn", "resnet56-cifar10", "lenet5-mnist"])
def test_real_networks(shared: Callable[[str], Path], name: str) -> None:
    path = shared(f"models/{name}.onnx")
    found = check_model(path, path.name, {}, LIMITS)
    assert found["outputs"][0]["shape"] == [10]
    assert all(group["prunable"] or group["reason"] for group in found["groups"])
    assert any(group["prunable"] for group in found["groups"])


# --- data sets


def write_digits(path: Path, change: Callable[[dict[str, Any]], None] = lambda arrays: None) -> Path:
    arrays = dict(np.load(io.BytesIO(digits_npz()), allow_pickle=False))
    change(arrays)
    np.savez_compressed(path, **arrays)
    return path


def with_nan(arrays: dict[str, Any]) -> None:
    for name in ("x_train", "x_val", "x_test"):
        arrays[name] = arrays[name].astype(np.float32)
    arrays["x_train"][5, 1, 2, 0] = np.nan


def test_a_good_data_set_is_described_and_left_decoded(tmp_path: Path) -> None:
    path = write_digits(tmp_path / "blob.npz")
    found = check_dataset(path, "0" * 64, None, None, LIMITS)
    assert found["counts"] == {"train": 897, "validation": 500, "test": 400}
    assert (found["classes"], found["image_shape"], found["warnings"]) == (10, [32, 32, 1], [])
    path.write_bytes(b"")  # the decoded copy is enough from now on
    dataset = load_dataset(path, cache=cache_beside(path), digest="0" * 64)
    assert len(dataset.train) == 897


@pytest.mark.parametrize(
    ("change", "field", "match"),
    [
        (lambda a: a.update(y_train=a["y_train"][:-1]), "y_train", "896 labels"),
        (lambda a: a.update(y_test=a["y_test"] + 5), "y_test", "outside 0..9"),
        (lambda a: a.update(y_train=a["y_train"] - 1), "y_train", "outside 0.."),
        (with_nan, "images of train", r"1 pixels of train are NaN .* \(5, 1, 2, 0\)"),
        (lambda a: a.update(x_train=a["x_train"].astype(object)), "x_train", "Python objects"),
    ],
)
def test_bad_data_sets_name_what_is_wrong(tmp_path: Path, change: Any, field: str, match: str) -> None:
    path = write_digits(tmp_path / "blob.npz", change)
    with pytest.raises(InvalidInput, match=match) as caught:
        check_dataset(path, "0" * 64, None, None, LIMITS)
    assert caught.value.field == field


def npz(**arrays: Any) -> bytes:
    written = io.BytesIO()
    np.savez(written, **arrays)
    return written.getvalue()


TWO = {"x_train": np.zeros((2, 4, 4, 1), np.uint8), "y_train": np.arange(2)}


@pytest.mark.parametrize(
    ("content", "field", "value", "match"),
    [
        (b"label,pixel\n1,2\n", "file", "mine", "looks like text, such as CSV"),
        (b"", "file", "mine", "this file is empty"),
        (npz(**TWO)[:200], "file", "mine", "the archive cannot be read, it may be cut short"),
        (zip_of("photos/ant/a.png", "photos/bee/b.png"), "file", "mine", "its folders are photos/ant, photos/bee"),
        (npz(**TWO), "train", 2, "too few images to draw validation and test from"),
        (npz(**{**TWO, "x_train": np.zeros((2, 4, 4, 1), np.uint16)}), "x_train", "uint16", r"x_train / 65535\)"),
    ],
)
def test_a_refused_data_set_is_named_by_its_file(
    tmp_path: Path, content: bytes, field: str, value: object, match: str
) -> None:
    path = tmp_path / "0a1b"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=match) as caught:
        check_dataset(path, "0" * 64, None, None, LIMITS, "mine")
    assert (caught.value.field, caught.value.value) == (field, value)
