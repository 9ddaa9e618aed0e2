"""What an upload says of inputs and outputs: channels last, several outputs, and what does not fit the data."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from onnx import TensorProto, helper, numpy_helper

MODELS, DATASETS, JOBS = "/api/v1/models", "/api/v1/datasets", "/api/v1/jobs"
HEADS = {"embedding": 12, "scores": 10, "auxiliary": 10}


def network(*heads: str, channels_last: bool = False) -> bytes:
    """A convolution on colour images of 16 x 8 and, for each head, its output; `map` is the convolution's own."""
    rng = np.random.default_rng(0)
    weights = {"conv.weight": rng.standard_normal((12, 3, 3, 3))}
    nodes = [helper.make_node("Transpose", ["image"], ["turned"], "turn", perm=[0, 3, 1, 2])] if channels_last else []
    nodes += [
        helper.make_node(
            "Conv", ["turned" if channels_last else "image", "conv.weight"], ["map"], "conv", pads=[1] * 4
        ),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
    ]
    outputs = []
    for head in heads:
        shape = ["batch", 12, 16, 8] if head == "map" else ["batch", HEADS[head]]
        outputs.append(helper.make_tensor_value_info(head, TensorProto.FLOAT, shape))
        if head != "map":
            weights[f"{head}.weight"] = rng.standard_normal((HEADS[head], 12))
            nodes.append(helper.make_node("Gemm", ["flat", f"{head}.weight"], [head], f"{head}-gemm", transB=1))
    shape = ["batch", 16, 8, 3] if channels_last else ["batch", 3, 16, 8]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "heads", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def upload(client: TestClient, content: bytes, name: str = "net", **fields: str) -> Any:
    return client.post(MODELS, files={"file": (f"{name}.onnx", content)}, data={"name": name, **fields})


def data(client: TestClient, classes: int = 10, shape: tuple[int, ...] = (16, 8, 3)) -> str:
    """Noise with labels of so many classes; the name of the data set."""
    buffer, rng, name = io.BytesIO(), np.random.default_rng(0), f"noise{classes}-{shape[-1]}"
    labels = np.arange(300) % classes
    np.savez(buffer, x_train=rng.integers(0, 256, (300, *shape), dtype=np.uint8), y_train=labels)
    answer = client.post(DATASETS, files={"file": (f"{name}.npz", buffer.getvalue())}, data={"name": name})
    assert answer.status_code == 201, answer.text
    return name


def job(client: TestClient, dataset: str, **fields: Any) -> Any:
    return client.post(JOBS, json={"model": "net", "dataset": dataset, "force": True, **fields})


def wrong(answer: Any) -> tuple[str, str]:
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    return error["field"], error["message"]


def roles(answer: Any) -> list[str | None]:
    return [output["role"] for output in answer.json()["outputs"]]


def test_one_output_is_scored(client: TestClient) -> None:
    answer = upload(client, network("scores"))
    assert (answer.status_code, roles(answer)) == (201, ["scored"])
    (image,) = answer.json()["inputs"]
    assert image == {"name": "image", "shape": [3, 16, 8], "dtype": "float32", "layout": "NCHW"}


def test_the_output_that_can_be_scored_is_and_the_map_is_kept(client: TestClient) -> None:
    assert roles(upload(client, network("map", "scores"))) == ["kept", "scored"]
    taken = job(client, data(client), methods=["int8_ptq"])  # nothing before the map may be cut
    assert taken.status_code == 201, taken.text


def test_the_classes_of_the_data_tell_which_output_is_scored(client: TestClient) -> None:
    answer = upload(client, network("embedding", "scores"))
    assert (answer.status_code, roles(answer)) == (201, [None, None])
    assert any("classes of a job's data will decide" in warning for warning in answer.json()["warnings"])
    taken = job(client, data(client))
    assert taken.status_code == 201, taken.text
    assert (
        "output scores is scored, because only this output fits 10 classes; kept unchanged: embedding"
        in taken.json()["warnings"]
    )


@pytest.mark.parametrize("force", [False, True])
def test_what_the_classes_leave_open_is_a_422_whatever_force_says(client: TestClient, force: bool) -> None:
    upload(client, network("embedding", "scores"))
    field, message = wrong(job(client, data(client, classes=9), force=force))
    assert field == "model"
    assert "embedding (batch, 12), scores (batch, 10)" in message


@pytest.mark.parametrize("force", [False, True])
def test_what_cannot_be_scores_is_a_422_whatever_force_says(client: TestClient, force: bool) -> None:
    answer = upload(client, network("map"))
    assert any("no output has one score per class" in warning for warning in answer.json()["warnings"])
    field, message = wrong(job(client, data(client), force=force))
    assert (field, "map (batch, 12, 16, 8)" in message) == ("model", True)


def test_outputs_that_are_alike_are_asked_for(client: TestClient) -> None:
    content = network("auxiliary", "scores")
    field, message = wrong(upload(client, content))
    assert (field, "auxiliary (batch, 10), scores (batch, 10)" in message) == ("output", True)
    answer = upload(client, content, output="scores")
    assert (answer.status_code, roles(answer)) == (201, ["kept", "scored"])
    assert upload(client, content, output="scores").status_code == 200
    assert upload(client, content, output="auxiliary").status_code == 409
    assert job(client, data(client)).status_code == 201


@pytest.mark.parametrize(("output", "seen"), [("logits", "it has map, scores"), ("map", "one score per class")])
def test_an_output_that_is_asked_for_is_checked(client: TestClient, output: str, seen: str) -> None:
    field, message = wrong(upload(client, network("map", "scores"), output=output))
    assert (field, seen in message) == ("output", True)


def test_an_input_with_channels_last_fits_its_data(client: TestClient) -> None:
    means = json.dumps({"mean": [0.1, 0.2, 0.3]})
    answer = upload(client, network("scores", channels_last=True), preprocessing=means)
    assert answer.status_code == 201, answer.text
    assert answer.json()["input_shape"] == [16, 8, 3]
    (image,) = answer.json()["inputs"]
    assert image == {"name": "image", "shape": [16, 8, 3], "dtype": "float32", "layout": "NHWC"}
    taken = job(client, data(client))
    assert taken.status_code == 201, taken.text


@pytest.mark.parametrize("channels_last", [False, True])
def test_data_that_do_not_fit_are_told_in_the_users_terms(client: TestClient, channels_last: bool) -> None:
    upload(client, network("scores", channels_last=channels_last))
    field, message = wrong(job(client, data(client, shape=(20, 20, 3))))
    assert field == "dataset"
    assert "images of [20, 20] do not fit the model's input of [16, 8] (height, width)" in message
    assert "preprocessing.size [16, 8]" in message
    field, message = wrong(job(client, data(client, shape=(16, 8, 1))))
    assert field == "dataset"
    assert "images have 1 channel (grey) and the model takes 3 channels (colour)" in message


def test_a_preprocessing_that_does_not_fit_an_input_with_channels_last(client: TestClient) -> None:
    content = network("scores", channels_last=True)
    field, message = wrong(upload(client, content, preprocessing=json.dumps({"size": [16, 3]})))
    assert (field, "the network takes images of [16, 8]" in message) == ("preprocessing.size", True)
    field, _ = wrong(upload(client, content, preprocessing=json.dumps({"mean": [0.1, 0.2]})))
    assert field == "preprocessing.mean"
