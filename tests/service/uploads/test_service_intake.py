"""Intake: the sandbox, and every bad network and data set, as the service sees them."""

from __future__ import annotations

import io
import json
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from patience import PATIENCE_S
from service_networks import classifier, model_of

from compress.builtin.digits import digits_npz
from compress.data.dataset import cache_beside, load_dataset
from compress.evidence import Evidence
from compress.importing.normalise import load_network
from compress.scheme import Scheme
from hw_profiles.host_lock import LOCK_DIR_VARIABLE, HostLock
from service.errors import InvalidInput
from service.uploads import sandbox
from service.uploads.intake import check_dataset, check_model
from service.uploads.sandbox import MIB, CheckBroken, Limits

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


# --- the sandbox itself: tasks that misbehave, put beside the real ones


SITECUSTOMIZE = """
import sys, importlib.util
spec = importlib.util.spec_from_file_location("service.uploads.checks.extra", {path!r})
sys.modules["service.uploads.checks.extra"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""
CLOSE_ALL = """
import os, time
os.closerange(0, 20)
time.sleep(600)
"""


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Adds a task to `service.uploads.checks` whose body is given; returns its name."""
    code = tmp_path / "extra"
    code.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(code))
    (code / "sitecustomize.py").write_text(SITECUSTOMIZE.format(path=str(code / "task.py")))

    def add(body: str) -> str:
        (code / "task.py").write_text(f"def run(request):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n")
        return "extra"

    return add


def outcome(name: str, limits: Limits = LIMITS) -> dict[str, Any]:
    return sandbox.run(name, {"word": "hello"}, limits)


def test_a_check_waits_while_somebody_measures_and_its_limit_does_not_run(
    task: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOCK_DIR_VARIABLE, str(tmp_path))
    name = task("return {}")
    with ThreadPoolExecutor() as pool:
        with HostLock(tmp_path).exclusive():
            # So short that the wait alone would use it up.
            found = pool.submit(outcome, name, Limits(wall_s=10))
            with pytest.raises(TimeoutError):
                found.result(11)
        assert found.result(PATIENCE_S) == {}


def test_nobody_measures_while_a_check_computes(
    task: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOCK_DIR_VARIABLE, str(tmp_path))
    began, may_end = tmp_path / "began", tmp_path / "end"
    name = task(f"""
        import os, time
        open({str(began)!r}, "w").close()
        while not os.path.exists({str(may_end)!r}): time.sleep(0.01)
        return {{}}
    """)
    measured = threading.Event()

    def measure() -> None:
        with HostLock(tmp_path).exclusive():
            measured.set()

    with ThreadPoolExecutor() as pool:
        check = pool.submit(outcome, name)
        while not began.exists():
            assert not check.done()
            time.sleep(0.01)
        measuring = pool.submit(measure)
        early = measured.wait(0.3)
        may_end.touch()
        assert check.result(PATIENCE_S) == {}
        measuring.result(PATIENCE_S)
    assert not early


def test_a_report_comes_back_whatever_is_printed(task: Callable[[str], str]) -> None:
    name = task("""
        import os, sys
        print("noise"); os.write(1, b"more noise"); sys.stderr.write("x")
        return {"heard": request["word"]}
    """)
    assert outcome(name) == {"heard": "hello"}


@pytest.mark.parametrize("kind", ["RuntimeError(said)", "InvalidInput('file', None, said)"])
def test_no_answer_tells_where_files_lie_here(task: Callable[[str], str], tmp_path: Path, kind: str) -> None:
    path = tmp_path / "objects" / "ab12"
    name = task(f"""
        import os
        from compress.errors import InvalidInput
        said = "load of " + request["path"] + ", " + request["path"] + ".cache and " + os.getcwd() + " failed"
        raise {kind}
    """)
    with pytest.raises(InvalidInput) as caught:
        sandbox.run(name, {"path": str(path)}, LIMITS)
    assert caught.value.message.endswith("load of <path>, <path>.cache and <folder> failed")


@pytest.mark.parametrize(
    ("body", "limits", "match"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", LIMITS, "SIGSEGV"),
        ("import os; os._exit(3)", LIMITS, "exit status 3"),
        ("raise KeyError('x')", LIMITS, "KeyError"),
        ("bytearray(8 << 30)", LIMITS, r"more than 4 GiB of memory"),
        ("while True: pass", Limits(cpu_s=1, wall_s=300), "1 s of processor time"),
        ("import time; time.sleep(600)", Limits(wall_s=1.5), r"more than 1\.5 s"),
        (
            CLOSE_ALL,
            Limits(wall_s=2),
            "more than 2 s",
        ),
        ("open('big', 'wb').write(bytes(2_000_000))", Limits(file_bytes=1_000_000), "File too large"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", LIMITS, "not allowed"),
        ("import subprocess; subprocess.run(['true'])", LIMITS, "not allowed"),
        ("import os; os.system('true')", LIMITS, "not allowed"),
        ("import pickle; pickle.loads(b'cos\\nsystem\\n.')", LIMITS, "not allowed"),
        ("return {'value': float('nan')}", LIMITS, "not JSON compliant"),
    ],
)
def test_whatever_happens_in_the_child_is_an_answer_about_the_file(
    task: Callable[[str], str], body: str, limits: Limits, match: str
) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        outcome(task(body), limits)
    assert caught.value.field == "file"


@pytest.mark.parametrize(
    "body",
    [
        "import service.not_written_yet",
        "from service.uploads.sandbox import not_there",
        "from service.uploads.not_onnx import refuse_foreign; refuse_foreign(3, 'x.onnx')",
        "from compress.errors import Mistake; raise Mistake('a rule of ours')",
    ],
)
def test_mistakes_of_our_own_are_no_answer_about_the_file(task: Callable[[str], str], body: str) -> None:
    with pytest.raises(CheckBroken, match="Traceback"):
        outcome(task(body))


def test_errors_that_a_library_stumbles_into_are_about_the_file(task: Callable[[str], str]) -> None:
    with pytest.raises(InvalidInput, match="AttributeError"):
        outcome(task("import shlex; shlex.split(3)"))


def test_the_child_sees_no_secrets(task: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETLATHE_TOKEN", "nl_u_hidden")
    monkeypatch.setenv("NETLATHE_DATABASE_URL", "postgresql://me:hidden@db/x")
    name = task("import os; return dict(os.environ)")
    assert "hidden" not in json.dumps(outcome(name))


def test_the_child_ends_when_its_parent_is_killed(task: Callable[[str], str], tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    name = task(f"""
        import os, time
        open({str(pid_file)!r} + ".part", "w").write(str(os.getpid()))
        os.rename({str(pid_file)!r} + ".part", {str(pid_file)!r})
        time.sleep(600)
    """)
    code = f"from service.uploads import sandbox; sandbox.run({name!r}, {{}}, sandbox.Limits())"
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        _wait_until(pid_file.exists)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    child = int(pid_file.read_text())
    _wait_until(lambda: not _runs(child))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _wait_until(holds: Callable[[], bool], at_most_s: float = 60.0) -> None:
    end = time.monotonic() + at_most_s
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_no_process_is_left_behind(task: Callable[[str], str], tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    name = task(f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    with pytest.raises(InvalidInput):
        outcome(name, Limits(wall_s=5))
    if pid_file.exists():  # a machine so busy that the child had not begun has nothing to leave either
        assert not _runs(int(pid_file.read_text()))
