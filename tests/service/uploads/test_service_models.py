"""Models over REST: uploads that stream, repeat, conflict, are refused or take long; preflight."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_calls import HandAgent
from fastapi.testclient import TestClient
from patience import PATIENCE_S
from service_networks import classifier
from service_world import HandClock

import service.uploads.checking as checking
from compress.counting.op_templates import ops
from compress.importing.normalise import load_network
from hw_profiles import runtimes
from hw_profiles.tables.table import Row
from hw_profiles.timing.protocol import Timing
from service.app import create_app
from service.errors import InvalidInput
from service.files.blobs import Blobs
from service.settings import Settings
from service.store import Store
from service.store.devices import devices, latency
from service.store.jobs import jobs
from service.store.uploads.models import Model
from service.uploads import intake
from service.uploads.sandbox import CheckBroken

FOUND = {
    "parameters": 10,
    "macs": 20,
    "size_bytes": 30,
    "input_shape": [3, 16, 16],
    "outputs": [{"name": "logits", "shape": [10]}],
    "groups": [{"name": "g", "width": 8, "prunable": True, "reason": None, "layers": ["conv"]}],
    "warnings": ["look out"],
}


def post(client: TestClient, content: bytes = b"onnx", file_name: str = "m.onnx", **fields: Any) -> Any:
    headers = {"Idempotency-Key": fields.pop("key")} if "key" in fields else {}
    data = {"name": "net", **fields}
    return client.post("/api/v1/models", files={"file": (file_name, content)}, data=data, headers=headers)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Replaces the sandbox: every file is a good network. Lists the checks that were asked for."""
    calls: list[tuple[Any, ...]] = []

    def check(*arguments: Any) -> dict[str, Any]:
        calls.append(arguments)
        return dict(FOUND)

    monkeypatch.setattr(intake, "check_model", check)
    return calls


def stored_names(settings: Settings) -> list[str]:
    objects = settings.data_dir / "objects"
    return [path.name for path in objects.glob("*/*")]


# --- with the real check


WRONG_READING = """
import compress.graph.onnxruntime as engine
honest = engine.run_onnxruntime
def wrong(network, images, names=None):
    found = honest(network, images, names)
    return {name: value if name == "conv0" else 1.5 * value for name, value in found.items()}
engine.run_onnxruntime = wrong
"""


@pytest.mark.sandbox
def test_torch_and_onnxruntime_that_disagree_are_a_422_naming_the_first_node(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WRONG_READING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answer = post(client, classifier())
    body = answer.json()
    assert (answer.status_code, body["code"]) == (422, "invalid"), body
    (wrong,) = body["errors"]
    assert wrong["field"] == "file"
    assert "than onnxruntime, first at node 'act0' (Relu)" in wrong["message"]
    assert client.get("/api/v1/models").json()["total"] == 0


BROKEN_GROUPS = """
import compress.graph.groups
def broken(network):
    raise TypeError("expected Tensor as element 0 in argument 0")
compress.graph.groups.groups = broken
"""


@pytest.mark.sandbox
def test_code_of_ours_that_fails_on_a_file_is_a_500_and_no_word_against_the_file(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN_GROUPS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answer = post(client, classifier())
    assert answer.status_code == 500
    assert "error id" in answer.json()["detail"]
    assert "Tensor" not in answer.text


def test_a_mistake_of_the_check_is_a_500_with_an_id(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise CheckBroken("Traceback: ImportError of something secret")

    monkeypatch.setattr(intake, "check_model", broken)
    answer = post(client, classifier())
    assert answer.status_code == 500
    assert "error id" in answer.json()["detail"]
    assert "secret" not in answer.text


def test_a_network_goes_up_comes_back_and_goes(client: TestClient) -> None:
    content = classifier()
    answer = post(client, content, preprocessing=json.dumps({"mean": 0.5, "std": [1, 2, 3]}))
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["id"].startswith("mdl_")
    assert made["state"] == "ready"
    assert made["input_shape"] == [3, 16, 16]
    assert made["preprocessing"]["mean"] == [0.5]
    assert made["problem"] is None
    for ref in (made["id"], "net"):
        assert client.get(f"/api/v1/models/{ref}").json() == made
    listed = client.get("/api/v1/models", params={"sort": "-macs"}).json()
    assert (listed["items"], listed["total"]) == ([made], 1)
    download = client.get("/api/v1/models/net/content")
    assert download.content == content
    assert download.headers["etag"] == f'"{made["sha256"]}"'
    assert download.headers["content-disposition"] == 'attachment; filename="net.onnx"'
    assert download.headers["x-content-type-options"] == "nosniff"
    again = client.get("/api/v1/models/net/content", headers={"If-None-Match": download.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.delete("/api/v1/models/net").status_code == 204
    assert client.get("/api/v1/models/net").status_code == 404


@pytest.mark.parametrize(
    ("content", "file_name", "match"),
    [
        (b"PK\x03\x04" + bytes(100), "evil.pt2", "export it on your own machine"),
        (b"\x80\x02}q\x00.", "evil.pt", "export it on your own machine"),
        (classifier()[:-500], "cut.onnx", "truncated"),
        (b"", "empty.onnx", "empty"),
    ],
)
def test_bad_files_are_422_with_the_field_and_leave_no_row(
    client: TestClient, content: bytes, file_name: str, match: str
) -> None:
    answer = post(client, content, file_name)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["errors"][0]["field"] == "file"
    assert match in problem["detail"]
    assert client.get("/api/v1/models").json()["total"] == 0


@pytest.mark.sandbox
def test_a_check_that_breaks_its_limit_is_a_422(settings: Settings, store: Store, user_token: str) -> None:
    poor = settings.model_copy(update={"check_memory_bytes": 64 * 1024**2})
    with TestClient(create_app(poor, store), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {user_token}"
        answer = post(client, classifier())
    assert answer.status_code == 422
    assert answer.json()["code"] == "check_failed"


# --- the request


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "No Name"}, "name"),
        ({"name": "mdl_1"}, "name"),
        ({"name": ""}, "name"),
        ({"preprocessing": "{"}, "preprocessing"),
        ({"preprocessing": "[1]"}, "preprocessing"),
        ({"preprocessing": "[" * 60_000}, "preprocessing"),
        ({"preprocessing": '{"std": 0}'}, "preprocessing.std"),
        ({"preprocessing": '{"std": Infinity}'}, "preprocessing.std"),
        ({"preprocessing": '{"sdt": 1}'}, "preprocessing.sdt"),
        ({"colour": "red"}, "colour"),
        ({"preprocessing": " " * 70_000}, "preprocessing"),
    ],
)
def test_fields_are_checked(client: TestClient, checked: list[Any], fields: dict[str, Any], field: str) -> None:
    answer = post(client, **fields)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field
    assert not checked


@pytest.mark.parametrize(
    ("body", "content_type", "field"),
    [
        (b"{}", "application/json", "body"),
        (b"x", "multipart/form-data", "body"),
        (b"", "multipart/form-data; boundary=b", "file"),
        (b"garbage", "multipart/form-data; boundary=b", "body"),
        (b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nnet\r\n--b--\r\n', None, "file"),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n', None, "file"),
        (b'--b\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n\r\nhalf of', None, "file"),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n\r\nx\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="n"\r\n\r\ny\r\n--b--\r\n',
            None,
            "file",
        ),
        (b'--b\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n\r\nx\r\n--b\r\n', None, "body"),
        (b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n\xff\r\n', None, "file"),
    ],
)
def test_bodies_that_are_no_upload(
    client: TestClient, settings: Settings, body: bytes, content_type: str | None, field: str
) -> None:
    headers = {"Content-Type": content_type or "multipart/form-data; boundary=b"}
    answer = client.post("/api/v1/models", content=body, headers=headers)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field
    assert not list((settings.data_dir / "objects" / "incoming").iterdir())


def test_the_file_name_is_only_a_name(client: TestClient, checked: list[Any]) -> None:
    post(client, file_name="../../etc/pass\nwd")
    assert "/" not in checked[0][1]
    assert "\n" not in checked[0][1]


def test_a_file_over_its_limit_is_a_413_and_nothing_is_kept(
    settings: Settings, store: Store, user_token: str, checked: list[Any]
) -> None:
    small = settings.model_copy(update={"max_model_bytes": 1000})
    with TestClient(create_app(small, store), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {user_token}"
        assert post(client, bytes(1000)).status_code == 201
        assert post(client, bytes(1001), name="more").status_code == 413

        def endless() -> Iterator[bytes]:
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n\r\n'
            for _ in range(4000):
                yield bytes(1000)

        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = client.post("/api/v1/models", content=endless(), headers=headers)
    assert answer.status_code == 413
    assert len(stored_names(settings)) == 1


def test_nothing_is_read_from_strangers(anonymous: TestClient, settings: Settings, checked: list[Any]) -> None:
    assert post(anonymous).status_code == 401
    assert not stored_names(settings)
    for path in ("", "/net", "/net/content", "/net/preflight?device=d"):
        assert anonymous.get(f"/api/v1/models{path}").status_code == 401


# --- names, repetitions, deletion


def test_the_same_upload_again_is_the_same_resource(client: TestClient, checked: list[Any]) -> None:
    first = post(client, preprocessing='{"mean": 0.5}')
    again = post(client, preprocessing='{"mean": [0.5], "scale": null}')
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert len(checked) == 1


@pytest.mark.parametrize("change", [{"content": b"other"}, {"preprocessing": '{"mean": 0.5}'}])
def test_the_same_name_for_something_else_is_a_409(
    client: TestClient, checked: list[Any], change: dict[str, Any]
) -> None:
    assert post(client).status_code == 201
    answer = post(client, **change)
    assert (answer.status_code, answer.json()["code"]) == (409, "name")
    assert len(checked) == 1


def test_an_idempotency_key_repeats_the_answer_even_after_the_model_went(
    client: TestClient, checked: list[Any]
) -> None:
    first = post(client, key="k")
    client.delete("/api/v1/models/net")
    again = post(client, key="k")
    assert (again.status_code, again.json()) == (201, first.json())
    assert post(client, b"other", key="k").status_code == 409
    assert len(checked) == 1


def test_two_uploads_of_one_name_at_once_make_one_model(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=PATIENCE_S)

    def check(*_arguments: Any) -> dict[str, Any]:
        both.wait()
        return dict(FOUND)

    monkeypatch.setattr(intake, "check_model", check)
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(post(client))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(answer.status_code for answer in answers) == [200, 201]
    assert answers[0].json() == answers[1].json()


def test_a_model_that_a_job_uses_stays(client: TestClient, store: Store, checked: list[Any]) -> None:
    model = post(client).json()
    with store.begin() as tx:
        add_job(tx, model["id"], model["sha256"])
    answer = client.delete("/api/v1/models/net")
    assert (answer.status_code, answer.json()["code"]) == (409, "referenced")
    assert "job-of-net" in answer.json()["detail"]


def add_job(tx: Any, model_id: str, sha256: str) -> None:
    from service.store.uploads.datasets import Dataset

    tx.session.add(Dataset(id="dts_1", name="d", sha256=sha256, file_name="d", created_at=tx.now))
    tx.session.flush()
    request = {"name": "job-of-net", "model": model_id, "dataset": "dts_1", "targets": []}
    jobs.create(tx, request)


# --- checks that take long


class SlowCheck:
    """A check that ends when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.end = threading.Event()
        self.error: Exception | None = None
        self.noted = threading.Event()
        monkeypatch.setattr(intake, "check_model", self)
        settle = checking.uploads.settle

        def settle_and_tell(*arguments: Any) -> None:
            settle(*arguments)
            self.noted.set()

        monkeypatch.setattr(checking.uploads, "settle", settle_and_tell)

    def __call__(self, *_arguments: Any) -> dict[str, Any]:
        assert self.end.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return dict(FOUND)

    def finish(self, error: Exception | None = None) -> None:
        self.error = error
        self.end.set()
        assert self.noted.wait(PATIENCE_S)


@pytest.fixture
def impatient(settings: Settings, store: Store, user_token: str) -> Iterator[TestClient]:
    """A client of a server that answers 202 at once."""
    hasty = settings.model_copy(update={"check_answer_s": 0.0})
    with TestClient(create_app(hasty, store), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {user_token}"
        yield client


def settled(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/v1/models/net").json()
    return found


def test_a_slow_check_is_202_and_becomes_ready(impatient: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowCheck(monkeypatch)
    answer = post(impatient)
    assert (answer.status_code, answer.json()["state"], answer.json()["macs"]) == (202, "checking", 0)
    assert post(impatient).status_code == 200  # the same again while it is being checked
    slow.finish()
    wait_for_commit(impatient, "ready")
    assert settled(impatient)["macs"] == FOUND["macs"]


@pytest.mark.parametrize("error", [InvalidInput("inputs", ["a", "b"], "two of them"), RuntimeError("a bug")])
def test_a_slow_check_that_refuses_tells_why_and_frees_the_name(
    impatient: TestClient, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    slow = SlowCheck(monkeypatch)
    first = post(impatient).json()
    slow.finish(error)
    wait_for_commit(impatient, "refused")
    problem = settled(impatient)["problem"]
    assert problem["field"] == ("inputs" if isinstance(error, InvalidInput) else "file")
    assert "a bug" not in json.dumps(problem)
    slow.end.clear()
    again = post(impatient, b"better")
    assert again.status_code == 202
    assert again.json()["id"] != first["id"]
    slow.end.set()


def wait_for_commit(client: TestClient, state: str) -> None:
    """`settle` was called; its transaction ends a moment later."""
    done = threading.Event()
    for _ in range(3000):
        if settled(client)["state"] == state:
            return
        done.wait(0.02)
    raise AssertionError(f"never {state}: {settled(client)}")


def test_a_model_deleted_while_it_is_checked_stays_deleted(
    impatient: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowCheck(monkeypatch)
    post(impatient)
    assert impatient.delete("/api/v1/models/net").status_code == 204
    slow.finish()
    assert impatient.get("/api/v1/models/net").status_code == 404


def test_a_check_whose_server_died_counts_as_refused(
    client: TestClient, store: Store, settings: Settings, clock: HandClock, checked: list[Any]
) -> None:
    blobs = Blobs(settings.data_dir)
    with store.begin() as tx:
        blob = blobs.put_bytes(b"onnx")
        blobs.record(tx, blob)
        tx.session.add(
            Model(id="mdl_x", name="net", sha256=blob.sha256, state="checking", preprocessing={}, created_at=tx.now)
        )
    assert settled(client)["state"] == "checking"
    clock.advance(settings.check_wall_s + 61)
    assert settled(client)["state"] == "refused"
    assert "interrupted" in settled(client)["problem"]["message"]
    assert post(client).status_code == 201


# --- preflight


@pytest.fixture
def device_id(client: TestClient, store: Store) -> str:
    return HandAgent(client, store).device_id


def test_preflight_before_anything_was_measured(client: TestClient, device_id: str) -> None:
    post(client, classifier())
    answer = client.get("/api/v1/models/net/preflight", params={"device": device_id})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["coverage"], found["latency_ms"], found["floor_ms"]) == (0, None, None)
    assert 0.5 < found["prunable_share"]["macs"] < 1
    assert any("no part of this network has been measured" in warning for warning in found["warnings"])
    assert {layer for row in found["layers"] for layer in row["layers"]} >= {"conv0", "conv1", "conv2", "head"}


def test_preflight_with_a_table_sums_up(client: TestClient, store: Store, device_id: str) -> None:
    content = classifier(odd_op="Celu")
    post(client, content)
    network = load_network(content)
    with store.begin() as tx:
        device = devices.get(tx, device_id)
        for op in ops(network, runtimes.load(device.runtime).fused(network.save()), runtimes.layout_of(device.runtime)):
            timing = Timing(quiet_us=100.0, p50_us=110.0, p95_us=120.0, split_half=0.001, bursts=20)
            latency.add_row(tx, device, Row.of(op, timing))
        name = device.name
    answer = client.get("/api/v1/models/net/preflight", params={"device": name})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["device"] == device_id
    assert found["coverage"] == 1
    assert found["missing"] == 0
    shares = [row["share"] for row in found["layers"]]
    assert sum(shares) == pytest.approx(1)
    assert {row["source"] for row in found["layers"]} == {"measured"}
    assert {row["prunable"] for row in found["layers"] if "conv2" in row["layers"]} == {True}
    assert {row["prunable"] for row in found["layers"] if row["layers"] == ["Celu"]} == {False}
    assert 0 < found["low_ms"] <= found["latency_ms"] <= found["high_ms"]
    assert found["floor_ms"] is not None
    assert any("Celu" in group["reason"] for group in found["frozen"])


def test_preflight_says_what_is_ranked_otherwise_than_asked(client: TestClient, device_id: str) -> None:
    post(client, classifier(odd_op="Sin", odd_at=1), name="walled")
    post(client, classifier(), name="free")
    seen = {}
    for name in ("walled", "free"):
        answer = client.get(f"/api/v1/models/{name}/preflight", params={"device": device_id})
        assert answer.status_code == 200, answer.text
        seen[name] = [warning for warning in answer.json()["warnings"] if "importance fisher" in warning]
    assert seen["free"] == []
    (said,) = seen["walled"]
    assert "conv0 (no gradient passes through act1)" in said
    assert "l2" in said


def test_preflight_of_what_is_not_there(client: TestClient, device_id: str, checked: list[Any]) -> None:
    post(client)
    assert client.get("/api/v1/models/other/preflight", params={"device": device_id}).status_code == 404
    assert client.get("/api/v1/models/net/preflight", params={"device": "other"}).status_code == 404
    assert client.get("/api/v1/models/net/preflight").status_code == 422


def test_blobs_of_data_sets_take_their_decoded_copies_with_them(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compress.data.dataset import cache_beside
    from service.files import blobs as blobs_module

    blobs = Blobs(settings.data_dir)
    kept, unwanted = blobs.put_bytes(b"kept"), blobs.put_bytes(b"unwanted")
    for blob in (kept, unwanted):
        copy = cache_beside(blobs.path(blob.sha256)) / "some-key"
        copy.mkdir(parents=True)
        (copy / "train.images.npy").write_bytes(b"pixels")
    with store.begin() as tx:
        blobs.record(tx, kept)
        tx.session.add(Model(id="mdl_x", name="net", sha256=kept.sha256, preprocessing={}, created_at=tx.now))
    monkeypatch.setattr(blobs_module, "KEEP_UNREFERENCED_S", -1.0)
    assert blobs.sweep(store) == 2
    left = {path.name for path in Path(settings.data_dir / "objects").glob("*/*")}
    assert left == {kept.sha256, f"{kept.sha256}.decoded"}
