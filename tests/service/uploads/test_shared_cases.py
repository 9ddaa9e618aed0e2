"""The shared cases, as the service answers them: taken, or refused with the field and the words that say why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient
from shared_cases import PIXELS, content

pytestmark = pytest.mark.shared


@dataclass(frozen=True)
class Case:
    """What is uploaded and submitted. `said`: words of the answer's warnings; `field`, `words`: of a refusal."""

    model: str
    data: str = "plain.npz"
    methods: tuple[str, ...] = ("filter_prune",)
    force: bool = False
    said: str = ""
    field: str = ""
    words: str = ""


TAKEN = [
    *(
        Case(name)
        for name in ("ir3-inputs", "pixelshuffle", "dead-channels", "softmax-inside", "reused-block", "half-weights")
    ),
    *(Case(name) for name in ("resize-empty-scales", "gru-head", "keras-nhwc", "gemm-alpha", "dense-concat", "plain")),
    Case("ir3-inputs", methods=("int8_ptq",)),
    Case("name-collision", methods=("int8_ptq",)),
    Case("cnn-lstm", "large.npz", force=True),
    Case("embedding-first", said="logits is scored, because only this output fits 10 classes"),
    Case("numeric-folders", "numeric-folders.zip"),
]
REFUSED = [
    Case("bn-training", field="model", words="export the network in eval mode"),
    Case("nan-outputs", field="model", words="not finite (NaN or infinite) on"),
    Case("already-int8", methods=("int8_ptq",), field="methods", words="in int8 already"),
    Case("qdq-int8", "large.npz", ("int8_ptq",), True, field="methods", words="in int8 already"),
    Case("half-weights", methods=("fp16",), field="methods", words="stored as float16 already"),
    Case("deeplab", force=True, field="model", words="no output of the model has one score per class"),
    Case("groupnorm", field="dataset", words="images of [16, 16] do not fit the model's input of [32, 32]"),
]


def shown(case: Case) -> str:
    return "-".join((case.model, *case.methods))


def upload(client: TestClient, kind: str, name: str, **fields: str) -> Any:
    return client.post(f"/api/v1/{kind}", files={"file": (name, content(name))}, data={"name": name, **fields})


def submitted(client: TestClient, case: Case) -> Any:
    model = upload(client, "models", f"{case.model}.onnx", preprocessing=PIXELS)
    assert model.status_code == 201, model.text
    assert model.json()["parameters"] > 0
    assert all(group["prunable"] or group["reason"] for group in model.json()["groups"])
    data = upload(client, "datasets", case.data)
    assert data.status_code == 201, data.text
    body = {"model": f"{case.model}.onnx", "dataset": case.data, "methods": case.methods, "force": case.force}
    return client.post("/api/v1/jobs", json=body)


@pytest.mark.parametrize("case", TAKEN, ids=shown)
def test_a_network_is_taken(client: TestClient, case: Case) -> None:
    answer = submitted(client, case)
    assert answer.status_code == 201, answer.text
    assert not case.said or any(case.said in warning for warning in answer.json()["warnings"])


@pytest.mark.parametrize("case", REFUSED, ids=shown)
def test_a_job_that_cannot_end_well_is_refused(client: TestClient, case: Case) -> None:
    answer = submitted(client, case)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert (error["field"], case.words in error["message"]) == (case.field, True), error


def test_an_upload_that_mixes_the_batch_says_how_to_export(client: TestClient) -> None:
    answer = upload(client, "models", "flatten-axis0.onnx", preprocessing=PIXELS)
    assert answer.status_code == 422, answer.text
    assert "export with Flatten(1)" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("valid-folder.zip", ""),
        ("mac.zip", "system files ignored"),
        ("unlabelled-test.parquet", "not used"),
        ("numeric-folders.zip", ""),
    ],
)
def test_data_are_taken(client: TestClient, name: str, said: str) -> None:
    answer = upload(client, "datasets", name)
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert not said or any(said in warning for warning in found["warnings"]), found["warnings"]
    if name == "valid-folder.zip":
        assert not any("drawn" in warning for warning in found["warnings"])
    if name == "numeric-folders.zip":
        assert [int(each) for each in found["class_names"]] == list(range(11))
