"""Batches in child processes: a model that crashes, hangs or is refused costs only itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fragile_runtime
import numpy as np
import pytest

from hw_profiles.child_process import Cancelled, ChildProcess, Death
from hw_profiles.host_lock import HostLock
from hw_profiles.tables.probe import probe_op
from hw_profiles.testing import small_network
from hw_profiles.timing.batch import CONVERSION_S, MODEL, SAMPLES, START_S, Batch, Checked, Outcome, Work
from hw_profiles.timing.protocol import BurstProtocol, Failure
from hw_profiles.timing.timing_model import timing_model
from hw_profiles.wire.arrays import pack, unpack

DEVICE = fragile_runtime.RUNTIME.configs("bench")[0]
QUICK = BurstProtocol(min_rounds=2, max_rounds=4, round_step=1)


@pytest.fixture(autouse=True)
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fragile_runtime.install(tmp_path / "installed", monkeypatch)


def _work(folder: Path, widths: Sequence[int]) -> list[Work]:
    work = []
    for width in widths:
        path = folder / f"{width}.onnx"
        path.write_bytes(timing_model(probe_op(4, width, 8), 1).SerializeToString())
        work.append(Work(str(width), {"many": path}, expected_us=100.0))
    return work


def _time(folder: Path, widths: Sequence[int], **settings: object) -> dict[str, Outcome]:
    batch = Batch(DEVICE, QUICK, HostLock(folder), **settings)  # type: ignore[arg-type]
    return dict(batch.time(_work(folder, widths)))


def test_a_healthy_batch_is_timed_in_one_process(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = _time(tmp_path, [4, 8], progress=lambda done, total: seen.append((done, total)))
    assert all(not isinstance(outcome, Failure) for outcome in found.values())
    assert seen
    assert {total for _, total in seen} == {2}


def test_a_model_that_crashes_is_found_and_the_rest_survives(tmp_path: Path) -> None:
    found = _time(tmp_path, [4, 8, fragile_runtime.CRASHES, 16, 20])
    culprit = found.pop(str(fragile_runtime.CRASHES))
    assert isinstance(culprit, Failure)
    assert culprit.kind == "crash"
    assert "SIGSEGV" in culprit.reason
    assert "about to crash" in culprit.reason
    assert len(found) == 4
    assert not any(isinstance(outcome, Failure) for outcome in found.values())


def test_a_model_that_hangs_is_killed_and_the_rest_survives(tmp_path: Path) -> None:
    batch = Batch(DEVICE, QUICK, HostLock(tmp_path), least_deadline_s=2.0)
    work = [Work(w.key, w.files, expected_us=0.0) for w in _work(tmp_path, [4, fragile_runtime.HANGS])]
    found = dict(batch.time(work))
    culprit = found[str(fragile_runtime.HANGS)]
    assert isinstance(culprit, Failure)
    assert culprit.kind == "timeout"
    assert not isinstance(found["4"], Failure)


def test_a_model_that_is_refused_fails_alone(tmp_path: Path) -> None:
    found = _time(tmp_path, [4, fragile_runtime.REFUSED])
    refused = found[str(fragile_runtime.REFUSED)]
    assert refused == Failure(str(fragile_runtime.REFUSED), "no such kernel", "error")
    assert not isinstance(found["4"], Failure)


def test_a_cancelled_batch_ends_and_kills_its_process(tmp_path: Path) -> None:
    asked = iter([False, True])
    batch = Batch(DEVICE, QUICK, HostLock(tmp_path), cancelled=lambda: next(asked, True))
    with pytest.raises(Cancelled):
        list(batch.time(_work(tmp_path, [fragile_runtime.HANGS])))
    with HostLock(tmp_path).exclusive():
        pass  # nobody holds it any more


def test_nothing_to_do(tmp_path: Path) -> None:
    assert _time(tmp_path, []) == {}


def test_what_runs_as_one_is_told_by_the_child_and_a_file_that_is_no_model_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(small_network())
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    work = [Work("small", {"model": path}), Work("broken", {"model": broken})]
    found = dict(Batch(DEVICE, QUICK, HostLock(tmp_path)).fuse(work))
    assert found["small"] == fragile_runtime.RUNTIME.fused(small_network())
    assert isinstance(found["broken"], Failure)
    assert "not an ONNX file" in found["broken"].reason


def test_a_network_is_converted_and_run_on_samples_in_a_process_of_its_own(tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    (tmp_path / "samples.npz").write_bytes(pack({"image": images}))
    work = []
    for name, model in (("good", small_network()), ("bad", b"not a model")):
        (tmp_path / f"{name}.onnx").write_bytes(model)
        work.append(Work(name, {MODEL: tmp_path / f"{name}.onnx", SAMPLES: tmp_path / "samples.npz"}))
    seen: list[tuple[int, int]] = []
    batch = Batch(DEVICE, QUICK, HostLock(tmp_path), progress=lambda done, total: seen.append((done, total)))
    found = dict(batch.check(work))
    assert isinstance(found["good"], Checked)
    assert found["good"].file.read_bytes() == small_network(), "its engine reads ONNX"
    wanted = [fragile_runtime.RUNTIME.run(small_network(), {"image": images[i : i + 1]}, DEVICE) for i in range(3)]
    assert np.array_equal(
        unpack(found["good"].outputs.read_bytes())["logits"], np.concatenate([each["logits"] for each in wanted])
    )
    assert isinstance(found["bad"], Failure)
    assert "not an ONNX file" in found["bad"].reason
    assert seen[-1] == (4, 4)


def test_a_conversion_has_minutes_and_one_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = timing_model(probe_op(4, fragile_runtime.HANGS, 8), 1)
    hanging = tmp_path / "hanging.onnx"
    hanging.write_bytes(model.SerializeToString())
    shapes = {each.name: [dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in model.graph.input}
    (tmp_path / "samples.npz").write_bytes(pack({name: np.zeros(dims, np.float32) for name, dims in shapes.items()}))
    work = [Work("hanging", {MODEL: hanging, SAMPLES: tmp_path / "samples.npz"}, expected_us=0.0)]
    patience_s: list[float] = []
    listen = ChildProcess.listen

    def noted(child: ChildProcess, deadline_s: float, cancelled: Callable[[], bool]) -> dict[str, Any] | Death:
        patience_s.append(deadline_s)
        return listen(child, 1.0 if deadline_s == CONVERSION_S else deadline_s, cancelled)

    monkeypatch.setattr(ChildProcess, "listen", noted)
    found = dict(Batch(DEVICE, QUICK, HostLock(tmp_path), least_deadline_s=2.0).check(work))
    assert patience_s == [START_S, CONVERSION_S], "minutes, however quick the timing of a network would be"
    assert isinstance(found["hanging"], Failure)
    assert found["hanging"].kind == "timeout"
