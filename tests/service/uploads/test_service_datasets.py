"""Data sets over REST: what they show, what they refuse, and the parts that are drawn."""

from __future__ import annotations

import errno
import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from patience import PATIENCE_S

from compress.builtin.digits import digits_npz
from compress.data.dataset import cache_beside
from service.app import create_app
from service.files.blobs import Blobs
from service.settings import Settings
from service.store import Store
from service.uploads import intake
from service.uploads.checks.__main__ import _answer
from service.uploads.sandbox import Limits, _outcome


def npz(**arrays: Any) -> bytes:
    rng = np.random.default_rng(0)
    named = {"x_train": rng.integers(0, 256, (60, 8, 6, 3), dtype=np.uint8), "y_train": np.arange(60) % 3} | arrays
    file = io.BytesIO()
    np.savez(file, **named)
    return file.getvalue()


def post(client: TestClient, content: bytes, file_name: str = "data.npz", **fields: Any) -> Any:
    data = {"name": "data", **fields}
    return client.post("/api/v1/datasets", files={"file": (file_name, content)}, data=data)


def test_digits_go_up_and_come_back(client: TestClient, settings: Settings) -> None:
    content = digits_npz()
    answer = post(client, content)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    shown = {name: made[name] for name in ("state", "train_count", "validation_count", "test_count", "classes")}
    assert shown == {"state": "ready", "train_count": 897, "validation_count": 500, "test_count": 400, "classes": 10}
    assert made["image_shape"] == [32, 32, 1]
    assert made["size_bytes"] == len(content)
    assert client.get("/api/v1/datasets/data").json() == made
    assert client.get(f"/api/v1/datasets/{made['id']}/content").content == content
    assert client.get("/api/v1/datasets").json()["items"] == [made]
    assert cache_beside(Blobs(settings.data_dir).path(made["sha256"])).is_dir()
    assert post(client, content).status_code == 200
    assert post(client, content, classes="11").status_code == 409
    assert client.delete("/api/v1/datasets/data").status_code == 204
    assert client.get("/api/v1/datasets/data").status_code == 404


def test_parts_that_will_be_drawn_are_announced(client: TestClient) -> None:
    made = post(client, npz()).json()
    assert (made["train_count"], made["validation_count"], made["test_count"]) == (36, 12, 12)
    assert sum("drawn from train" in warning for warning in made["warnings"]) == 2


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (npz(y_train=np.arange(59) % 3), "y_train"),
        (npz(y_train=np.arange(60) % 3 - 1), "y_train"),
        (npz(x_train=np.full((60, 8, 6, 3), np.nan, np.float32)), "images of train"),
        (npz(x_train=np.zeros((60, 3, 8, 3), np.uint8)), "layout"),
        (npz(x_train=np.array([object()] * 60)), "x_train"),
        (npz()[:-200], "file"),
        (b"PK\x03\x04 and nothing", "file"),
        (b"", "file"),
        (b"\x80\x02.", "file"),
    ],
)
def test_bad_files_name_their_field_and_value(client: TestClient, content: bytes, field: str) -> None:
    answer = post(client, content)
    assert answer.status_code == 422, answer.text
    error = answer.json()["errors"][0]
    assert error["field"] == field
    assert error["message"]
    assert client.get("/api/v1/datasets").json()["total"] == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"layout": "HWC"}, "layout"),
        ({"classes": "two"}, "classes"),
        ({"classes": "1"}, "classes"),
        ({"classes": "-3"}, "classes"),
        ({"classes": "9" * 30}, "classes"),
        ({"preprocessing": "{}"}, "preprocessing"),
    ],
)
def test_fields_are_checked(client: TestClient, fields: dict[str, str], field: str) -> None:
    answer = post(client, npz(), **fields)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def files_of(settings: Settings) -> list[Path]:
    return [path for path in (settings.data_dir / "objects").rglob("*") if path.is_file() or "." in path.name]


def test_a_disk_that_is_full_when_a_file_arrives_is_a_503_that_left_nothing(
    client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("service.files.blobs.os.fsync", lambda handle: no_room())
        answer = post(client, npz())
    assert (answer.status_code, answer.json()["code"]) == (503, "no_space")
    assert "no space left" in answer.json()["detail"]
    assert files_of(settings) == []
    assert post(client, npz()).status_code == 201


def test_a_disk_that_is_full_when_a_file_is_checked_is_a_503_that_left_nothing(
    client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.uploads.checks.dataset.run", lambda request: no_room())
    report = _answer("dataset", {})  # what the child says

    def check(*_: Any) -> dict[str, Any]:
        return _outcome(report, 0, "", Limits(), "file")

    monkeypatch.setattr(intake, "check_dataset", check)
    answer = post(client, npz())
    assert (answer.status_code, answer.json()["code"]) == (503, "no_space")
    assert files_of(settings) == []
    assert client.get("/api/v1/datasets").json()["total"] == 0


def no_room() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_layout_and_classes_are_believed_and_checked(client: TestClient) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 3), dtype=np.uint8)
    made = post(client, npz(x_train=images), layout="NCHW", classes="3").json()
    assert made["image_shape"] == [8, 3, 3]
    answer = post(client, npz(), name="other", classes="2")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "y_train"


def test_a_data_set_over_its_limit_is_a_413(settings: Settings, store: Store, user_token: str) -> None:
    small = settings.model_copy(update={"max_dataset_bytes": 1000})
    with TestClient(create_app(small, store), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {user_token}"
        assert post(client, bytes(1001)).status_code == 413


def test_a_slow_check_of_data_ends_in_the_same_columns(
    settings: Settings, store: Store, user_token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    end = threading.Event()
    found = {
        "counts": {"train": 8, "validation": 1, "test": 1},
        "classes": 2,
        "class_names": ["a", "b"],
        "image_shape": None,
        "warnings": ["images differ in size"],
    }

    def check(*_arguments: Any) -> dict[str, Any]:
        assert end.wait(PATIENCE_S)
        return dict(found)

    monkeypatch.setattr(intake, "check_dataset", check)
    hasty = settings.model_copy(update={"check_answer_s": 0.0})
    with TestClient(create_app(hasty, store), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {user_token}"
        assert post(client, npz()).status_code == 202
        end.set()
        pause = threading.Event()
        for _ in range(3000):
            shown = client.get("/api/v1/datasets/data").json()
            if shown["state"] != "checking":
                break
            pause.wait(0.02)
    assert shown["state"] == "ready"
    assert (shown["train_count"], shown["classes"], shown["image_shape"]) == (8, 2, None)
    assert shown["class_names"] == ["a", "b"]


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def png_header(side: int) -> bytes:
    """A PNG that announces `side` x `side` pixels and holds none."""
    chunks = [
        b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0),
        b"IDAT" + zlib.compress(b""),
        b"IEND",
    ]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"train/ant/zeros.png": bytes(200 * 1024**2)}, "zip bomb"),
        ({"train/ant/a.png": png_header(60_000), "train/bee/b.png": png_header(60_000)}, "image bomb"),
    ],
)
def test_bombs_are_a_422_that_says_so(client: TestClient, members: dict[str, bytes], message: str) -> None:
    answer = post(client, zipped(members), "data.zip")
    body = answer.json()
    assert (answer.status_code, body["code"]) == (422, "invalid"), body
    assert answer.headers["content-type"] == "application/problem+json"
    (wrong,) = body["errors"]
    assert message in wrong["message"]
    assert client.get("/api/v1/datasets").json()["total"] == 0
