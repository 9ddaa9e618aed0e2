from __future__ import annotations

import os
import sys

import pytest

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import ExtraMissing, InvalidInput
from hw_profiles.runtimes.onnxruntime.cores import big_cores, pinned
from hw_profiles.tables.anchors import session


def test_the_name_is_the_contracts() -> None:
    assert DeviceConfig("pi5", "cpu", "onnxruntime", "1.31.1", threads=4).name == "pi5-onnxruntime-t4-fp32"


def test_the_id_knows_every_setting() -> None:
    base = DeviceConfig("pi5", "cpu", "onnxruntime", "1.31.1")
    others = [
        DeviceConfig("pi4", "cpu", "onnxruntime", "1.31.1"),
        DeviceConfig("pi5", "cpu", "onnxruntime", "1.30.0"),
        DeviceConfig("pi5", "cpu", "onnxruntime", "1.31.1", threads=2),
        DeviceConfig("pi5", "cpu", "onnxruntime", "1.31.1", emulated=True),
        DeviceConfig("pi5", "cpu", "onnxruntime", "1.31.1", options=(("a", "1"),)),
    ]
    assert len({device.config_id for device in (base, *others)}) == 6
    assert DeviceConfig.from_json(base.to_json()).config_id == base.config_id
    assert [DeviceConfig.from_json(device.to_json()) for device in others] == others


@pytest.mark.parametrize(
    ("field", "data"),
    [
        ("threads", {"threads": 0}),
        ("kind", {"kind": "toaster"}),
        ("name", {"machine": "My Laptop"}),
        ("options", {"options": [["b", "1"], ["a", "1"]]}),
        ("device", {"colour": "red"}),
    ],
)
def test_wrong_settings_name_the_field(field: str, data: dict[str, object]) -> None:
    good = DeviceConfig("pi5", "cpu", "onnxruntime", "1").to_json()
    with pytest.raises(InvalidInput, match=f"^{field}: "):
        DeviceConfig.from_json({**good, **data})


def test_anchors_give_a_scale_and_a_drift() -> None:
    found = session({"a": 100.0, "b": 50.0, "c": 10.0}, {"a": 105.0, "b": 52.5}, {"a": 105.0, "b": 52.5, "d": 1.0})
    assert found.scale == pytest.approx(1 / 1.05)
    assert found.drift == pytest.approx(0.0)
    assert found.accepted


def test_a_machine_at_another_speed_is_scaled_not_refused() -> None:
    slower = {"a": 120.0, "b": 60.6, "c": 11.9}
    found = session({"a": 100.0, "b": 50.0, "c": 10.0}, slower, slower)
    assert found.accepted
    assert found.scale == pytest.approx(1 / 1.2, rel=0.02)


def test_a_session_that_one_factor_does_not_explain_is_not_accepted() -> None:
    assert not session({"a": 100.0}, {"a": 160.0}, {"a": 160.0}).accepted
    assert not session({"a": 100.0}, {"a": 98.0}, {"a": 102.0}).accepted
    apart = {"a": 100.0, "b": 56.0, "c": 9.0}
    found = session({"a": 100.0, "b": 50.0, "c": 10.0}, apart, apart)
    assert found.spread == pytest.approx(0.16, abs=0.01)
    assert not found.accepted


def test_anchors_must_be_measured() -> None:
    with pytest.raises(InvalidInput, match="anchors"):
        session({"a": 1.0}, {"b": 1.0}, {"a": 1.0})
    with pytest.raises(InvalidInput, match="above 0"):
        session({"a": 1.0}, {"a": 0.0}, {"a": 1.0})


def test_big_cores_are_some_of_ours() -> None:
    cores = big_cores()
    assert cores
    assert len(set(cores)) == len(cores)


def test_pinning_ends_with_the_block() -> None:
    before = os.sched_getaffinity(0) if sys.platform == "linux" else None
    with pinned(1) as cores:
        if before is not None:
            assert os.sched_getaffinity(0) == set(cores)
    if before is not None:
        assert os.sched_getaffinity(0) == before
    with pinned(10_000) as cores:
        assert cores == ()


def test_a_missing_extra_is_one_line() -> None:
    assert (
        str(ExtraMissing("the runtime 'x'", "agent"))
        == "the runtime 'x' needs pip install '.[agent]' -c constraints.txt (in the clone)"
    )
