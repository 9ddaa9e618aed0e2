"""What is found out before a job is queued: chance by running the original, floors from the device's table."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import numpy as np
import onnx
import pytest
from agent_calls import HandAgent, conv, fill
from fastapi.testclient import TestClient
from onnx import helper, numpy_helper
from service_networks import classifier, model_of, option_a
from service_world import Uploaded

from compress.counting.op_templates import op_templates
from compress.graph.fold import fold_norms
from compress.graph.rewrites import rewritten
from compress.importing.normalise import load_network
from compress.scheme import Scheme
from hw_profiles import runtimes
from hw_profiles.tables.table import Row
from hw_profiles.timing.protocol import Timing
from service.store import Store
from service.store.devices import devices, latency
from service.store.uploads import scores
from workers.problem.widths import searched_widths

JOBS = "/api/v1/jobs"
SUFFIX = {"models": "onnx", "datasets": "npz"}


def brightness() -> bytes:
    """A network that says whether an image is brighter than half: image (3, 16, 16) -> 2 logits."""
    weight = np.array([[0, 0, 0], [1 / 3, 1 / 3, 1 / 3]], np.float32)
    bias = np.array([0, -0.5], np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], "head", transB=1),
    ]
    weights = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")]
    return model_of(nodes, {"image": (3, 16, 16)}, (2,), weights)


def dark_and_bright(count: int = 2000) -> bytes:
    """Images of two classes as an .npz: dark ones and bright ones."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    images = (
        rng.integers(0, 128, (count, 16, 16, 3), dtype=np.uint8) + (labels * 128).astype(np.uint8)[:, None, None, None]
    )
    buffer = io.BytesIO()
    np.savez(buffer, x_train=images, y_train=labels)
    return buffer.getvalue()


def upload(client: TestClient, kind: str, name: str, content: bytes, **fields: str) -> None:
    answer = client.post(
        f"/api/v1/{kind}", files={"file": (f"{name}.{SUFFIX[kind]}", content)}, data={"name": name, **fields}
    )
    assert answer.status_code == 201, answer.text


def test_a_wrong_scale_puts_the_original_at_chance_and_is_refused(client: TestClient, store: Store) -> None:
    upload(client, "models", "right", brightness())
    upload(client, "models", "wrong", brightness(), preprocessing=json.dumps({"scale": 1.0}))
    upload(client, "datasets", "light", dark_and_bright())
    upload(client, "models", "inverted", brightness(), preprocessing=json.dumps({"mean": [3.0]}))
    body = {"dataset": "light", "methods": ["int8_ptq"]}
    right = client.post(JOBS, json={**body, "model": "right"})
    assert right.status_code == 201, right.text
    wrong = client.post(JOBS, json={**body, "model": "wrong"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "at_chance")
    assert "chance is 50.0%" in wrong.json()["detail"]
    assert "'scale': 1.0" in wrong.json()["detail"]
    usual = client.post(JOBS, json={**body, "model": "inverted"})
    assert "'scale': '1/255 for uint8 pixels, 1 for float32 pixels'" in usual.json()["detail"], usual.text
    assert "None" not in usual.json()["detail"]
    with store.read() as tx:
        kept = {score.model_id: score.right / score.count for score in tx.session.query(scores.Score)}
    assert sorted(round(value, 1) for value in kept.values()) == [0.5, 0.5, 1.0]


def test_an_original_is_scored_as_the_upload_read_it(client: TestClient) -> None:
    """Of a file that onnxruntime itself refuses: two nodes have one name."""
    model = onnx.load_model_from_string(brightness())
    for node in model.graph.node:
        node.name = "same"
    upload(client, "models", "twins", model.SerializeToString())
    upload(client, "datasets", "light", dark_and_bright())
    answer = client.post(JOBS, json={"dataset": "light", "model": "twins", "methods": ["int8_ptq"]})
    assert answer.status_code == 201, answer.text


def answered(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post(JOBS, json={"dataset": "light", **body})
    assert answer.status_code == 422, answer.text
    problem: dict[str, Any] = answer.json()
    return problem


def test_methods_that_find_nothing_to_change_are_refused_with_the_reason(client: TestClient) -> None:
    images = dark_and_bright()
    batch = np.random.default_rng(0).random((8, 3, 16, 16), np.float32)
    scheme = Scheme.of([("int8_ptq", {})])
    network = load_network(brightness())
    quantised = scheme.bind({"int8_ptq": "int8"}).rewrite(network, scheme.gather(network, batch)).save()
    upload(client, "models", "eight", quantised)
    upload(client, "models", "floats", brightness())
    upload(client, "datasets", "light", images)
    for methods in (["int8_ptq"], ["int8_ptq", "fp16"]):
        refused = answered(client, model="eight", methods=methods)
        assert "in int8 already" in refused["detail"], refused
        assert "model eight" in refused["detail"]
        assert refused["errors"][0]["field"] == "methods"
    kept = {"name": "int8_ptq", "settings": {"keep_float": ["weight"]}}
    assert "nothing to change" in answered(client, model="floats", methods=[kept])["detail"]


def overflowing() -> bytes:
    """`brightness`, its scores divided by what is zero for dark images."""
    model = onnx.load_model_from_string(brightness())
    del model.graph.node[-1]
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axes"))
    model.graph.node.extend(
        [
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["raw"], "head", transB=1),
            helper.make_node("Relu", ["raw"], ["bright"], "relu"),
            helper.make_node("ReduceSum", ["bright", "axes"], ["total"], "total"),
            helper.make_node("Div", ["raw", "total"], ["logits"], "share"),
        ]
    )
    return bytes(model.SerializeToString())


def test_outputs_that_are_not_finite_are_refused_with_their_count(client: TestClient) -> None:
    upload(client, "models", "broken", overflowing())
    upload(client, "datasets", "light", dark_and_bright())
    refused = answered(client, model="broken", methods=["int8_ptq"], force=True)
    told = re.search(r"not finite \(NaN or infinite\) on (\d+) of (\d+) validation samples", refused["detail"])
    assert told is not None, refused
    broken, count = map(int, told.groups())
    assert 0.4 * count < broken < 0.6 * count


def normed(mean: float, shift: float = 0.0) -> bytes:
    """`brightness` with a batch norm in training mode that expects this mean, and shifts what it puts out."""
    model = onnx.load_model_from_string(brightness())
    values = {"scale": 1.0, "shift": shift, "mean": mean, "variance": 0.08}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.full(3, value, np.float32), f"norm.{role}") for role, value in values.items()
    )
    norm = ["pooled", *(f"norm.{role}" for role in values)]
    model.graph.node.insert(
        1, helper.make_node("BatchNormalization", norm, ["normed", "m", "v"], "norm", training_mode=1)
    )
    model.graph.node[2].input[0] = "normed"
    bias = next(each for each in model.graph.initializer if each.name == "bias")
    bias.CopyFrom(numpy_helper.from_array(np.zeros(2, np.float32), "bias"))
    return bytes(model.SerializeToString())


def test_norms_in_training_mode_are_put_into_inference_mode_or_refused(client: TestClient) -> None:
    upload(client, "models", "same", normed(0.5))
    upload(client, "models", "other", normed(0.99))
    upload(client, "datasets", "light", dark_and_bright())
    assert any("training mode" in warning for warning in client.get("/api/v1/models/same").json()["warnings"])
    taken = client.post(JOBS, json={"dataset": "light", "model": "same", "methods": ["int8_ptq"]})
    assert taken.status_code == 201, taken.text
    refused = answered(client, model="other", methods=["int8_ptq"], force=True)
    assert "exported in training mode" in refused["detail"], refused
    assert "model.eval()" in refused["detail"]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the preflight of the model says; a test changes it."""
    told = {"latency_ms": 10.0, "floor_ms": 4.0, "floor_low_ms": 3.8, "coverage": 0.9, "floor_coverage": 0.9}
    monkeypatch.setattr("service.jobs.admission.preflight", lambda path, table, limits, settings, fused: told)
    return told


def submit(client: TestClient, device_id: str, **limit: float) -> Any:
    body = {"model": "net", "dataset": "digits", "targets": [{"device": device_id, **limit}]}
    return client.post(JOBS, json=body)


class TestFloor:
    @pytest.fixture
    def agent(self, client: TestClient, store: Store, uploaded: Uploaded) -> HandAgent:
        """The agent of a device on which one block was measured."""
        agent = HandAgent(client, store)
        fill(store, agent.device_id, [conv(8)])
        agent.finish(agent.lease())
        return agent

    @pytest.mark.parametrize(
        ("limit", "nearest"), [({"max_latency_ms": 3.0}, "4"), ({"max_latency_ratio": 0.3}, "0.4")]
    )
    def test_a_limit_below_it_is_refused_with_the_nearest(
        self, client: TestClient, agent: HandAgent, found: dict[str, Any], limit: dict[str, float], nearest: str
    ) -> None:
        answer = submit(client, agent.device_id, **limit)
        assert (answer.status_code, answer.json()["code"]) == (422, "below_floor")
        error = answer.json()["errors"][0]
        ((name, value),) = limit.items()
        assert (error["field"], error["value"]) == (f"targets.0.{name}", value)
        assert error["message"].endswith(f"the nearest possible is {nearest}")

    @pytest.mark.parametrize("limit", [{"max_latency_ms": 3.9}, {"max_latency_ratio": 0.5}])
    def test_a_limit_that_may_be_met_is_taken(
        self, client: TestClient, agent: HandAgent, found: dict[str, Any], limit: dict[str, float]
    ) -> None:
        answer = submit(client, agent.device_id, **limit)
        assert (answer.status_code, answer.json()["warnings"]) == (201, [])

    @pytest.mark.parametrize("coverage", ["coverage", "floor_coverage"])
    def test_a_table_that_knows_too_little_only_warns(
        self, client: TestClient, agent: HandAgent, found: dict[str, Any], coverage: str
    ) -> None:
        found[coverage] = 0.79
        answer = submit(client, agent.device_id, max_latency_ms=3.0)
        assert answer.status_code == 201
        assert "too little was measured" in answer.json()["warnings"][0]

    def test_a_device_that_has_not_told_what_it_fuses_only_warns(
        self, client: TestClient, agent: HandAgent, found: dict[str, Any]
    ) -> None:
        found.clear()
        found["untold"] = "the device has not told yet"
        answer = submit(client, agent.device_id, max_latency_ms=3.0)
        assert answer.status_code == 201, answer.text
        assert "too little was measured" in answer.json()["warnings"][0]


def measured(store: Store, device_id: str, content: bytes) -> None:
    """A table in which every block of a network takes 100 us, and every block of its smallest version 40 us."""
    network = load_network(content)
    scheme = Scheme.of([("filter_prune", {})])
    smallest = {name: widths[0] for name, widths in searched_widths(network, scheme, []).items()}
    with store.begin() as tx:
        device = devices.get(tx, device_id)
        runtime = runtimes.load(device.runtime)
        for template in op_templates(network, runtime.fused(network.save()), runtime.layout):
            own = {name: width for name, width in smallest.items() if name in template.blocks}
            for op, quiet_us in ((template.at(own), 40.0), (template.at(), 100.0)):
                timing = Timing(quiet_us=quiet_us, p50_us=quiet_us, p95_us=quiet_us, split_half=0.001, bursts=20)
                latency.add_row(tx, device, Row.of(op, timing))


@pytest.mark.parametrize("methods", [["filter_prune"], ["filter_prune", "int8_ptq"], ["int8_ptq"]])
def test_a_limit_below_the_floor_of_a_measured_table(client: TestClient, store: Store, methods: list[str]) -> None:
    content = classifier()
    upload(client, "models", "convs", content)
    upload(client, "datasets", "light", dark_and_bright())
    device_id = HandAgent(client, store).device_id
    measured(store, device_id, content)
    body = {"model": "convs", "dataset": "light", "methods": methods, "force": True}  # its weights are random
    answer = client.post(JOBS, json={**body, "targets": [{"device": device_id, "max_latency_ms": 0.001}]})
    if methods == ["filter_prune"]:
        assert (answer.status_code, answer.json()["code"]) == (422, "below_floor"), answer.text
        (error,) = answer.json()["errors"]
        assert (error["field"], error["value"]) == ("targets.0.max_latency_ms", 0.001)
        nearest_ms = float(error["message"].rpartition(" ")[2])
        assert 0.04 < nearest_ms < 1.0
    else:
        assert answer.status_code == 201, answer.text
        (warning,) = [line for line in answer.json()["warnings"] if "below what pruning can reach" in line]
        assert warning.endswith(f"only measuring will show whether {' and '.join(methods)} can meet it")
    taken = client.post(JOBS, json={**body, "targets": [{"device": device_id, "max_latency_ms": 50.0}]})
    assert taken.status_code == 201, taken.text
    assert not any("below" in line for line in taken.json()["warnings"])


def measured_in_both_forms(store: Store, device_id: str) -> None:
    """The network with its option-A shortcut takes 900 us of kernels (what slices and pads: 100 each), its lossless
    rewrite 700, and the smallest of either 60 a convolution.
    """
    uploaded = fold_norms(load_network(option_a()))
    scheme = Scheme.of([("filter_prune", {})])
    with store.begin() as tx:
        device = devices.get(tx, device_id)
        runtime = runtimes.load(device.runtime)
        for form in (uploaded, rewritten(uploaded)):
            smallest = {name: widths[0] for name, widths in searched_widths(form, scheme, []).items()}
            for template in op_templates(form, runtime.fused(form.save()), runtime.layout):
                own = {name: width for name, width in smallest.items() if name in template.blocks}
                shortcut = any("every_second" in name or "new_channels" in name for name in template.layers)
                whole_us, least_us = (100.0, 100.0) if shortcut and form is uploaded else (100.0, 60.0)
                for op, quiet_us in ((template.at(own), least_us), (template.at(), whole_us)):
                    timing = Timing(quiet_us=quiet_us, p50_us=quiet_us, p95_us=quiet_us, split_half=0.001, bursts=20)
                    latency.add_row(tx, device, Row.of(op, timing))


def test_a_ratio_is_of_the_network_as_it_was_uploaded(client: TestClient, store: Store) -> None:
    upload(client, "models", "shortcut", option_a())
    upload(client, "datasets", "light", dark_and_bright())
    device_id = HandAgent(client, store).device_id
    measured_in_both_forms(store, device_id)
    predicted = client.post(f"/api/v1/devices/{device_id}/predict", json={"model": "shortcut"}).json()
    found = client.get("/api/v1/models/shortcut/preflight", params={"device": device_id}).json()
    assert min(found["coverage"], found["floor_coverage"]) == pytest.approx(1.0)
    assert found["latency_ms"] == pytest.approx(predicted["latency_ms"])
    assert [layer["layers"] for layer in found["layers"]] == [block["layers"] for block in predicted["blocks"]]
    least = found["floor_low_ms"] / predicted["latency_ms"]
    body = {"model": "shortcut", "dataset": "light", "methods": ["filter_prune"], "force": True}
    taken = client.post(JOBS, json={**body, "targets": [{"device": device_id, "max_latency_ratio": 1.02 * least}]})
    assert taken.status_code == 201, taken.text
    refused = client.post(JOBS, json={**body, "targets": [{"device": device_id, "max_latency_ratio": 0.98 * least}]})
    assert (refused.status_code, refused.json()["code"]) == (422, "below_floor")
    nearest = float(refused.json()["errors"][0]["message"].rpartition(" ")[2])
    assert nearest == pytest.approx(found["floor_ms"] / predicted["latency_ms"], rel=1e-3)


def test_an_empty_table_and_an_absent_device_only_warn(client: TestClient, uploaded: Uploaded) -> None:
    answer = submit(client, uploaded.device_id, max_latency_ms=0.001)
    assert answer.status_code == 201
    assert [warning.split(": ")[1] for warning in answer.json()["warnings"]] == [
        "the job waits for it",
        "too little was measured there to say whether the limit can be met",
    ]
