"""netlathe.Client against a fake server: retries, problems, uploads, checked downloads, resumed streams."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from patience import PATIENCE_S

import netlathe
from netlathe import Client
from netlathe.progress import note

JOB = {"id": "job_1", "name": "j", "state": "running", "phase": "search", "progress": {"fraction": 0.5}}


def _client(handler: Callable[[httpx.Request], httpx.Response], waits: list[float] | None = None) -> Client:
    return Client(
        "http://server", "nl_u_secret", transport=httpx.MockTransport(handler), sleep=(waits or []).append, retries=3
    )


class Server:
    """Answers from a script, and remembers what was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("NETLATHE_URL", "NETLATHE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETLATHE_DATA_DIR", str(tmp_path / "data"))


def test_a_post_is_retried_with_the_same_idempotency_key() -> None:
    server = Server(httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(201, json=JOB))
    waits: list[float] = []
    client = Client("http://server", "t", transport=httpx.MockTransport(server), sleep=waits.append, backoff_s=0.5)
    job = client.jobs.create(model="m", dataset="d", methods=["filter_prune"])
    assert job.id == "job_1"
    keys = {request.headers["Idempotency-Key"] for request in server.asked}
    assert len(server.asked) == 3
    assert len(keys) == 1
    assert waits == [0.5, 1.0]


def test_two_posts_have_two_keys() -> None:
    server = Server(httpx.Response(200, json=JOB), httpx.Response(200, json=JOB))
    client = _client(server)
    client.jobs.cancel("job_1")
    client.jobs.cancel("job_1")
    assert len({request.headers["Idempotency-Key"] for request in server.asked}) == 2


def test_retry_after_is_obeyed() -> None:
    waits: list[float] = []
    server = Server(httpx.Response(429, headers={"Retry-After": "7"}), httpx.Response(200, json=JOB))
    client = Client("http://server", "t", transport=httpx.MockTransport(server), sleep=waits.append)
    client.jobs.get("job_1")
    assert waits == [7.0]


def test_no_answer_at_all() -> None:
    server = Server(*[httpx.ConnectError("refused")] * 4)
    with pytest.raises(netlathe.Unreachable, match="no answer from http://server: refused"):
        _client(server).jobs.get("job_1")


def test_an_answer_that_is_not_json() -> None:
    server = Server(httpx.Response(200, html="<h1>a proxy</h1>"))
    with pytest.raises(netlathe.Unreadable, match="text/html"):
        _client(server).jobs.get("job_1")


def test_a_job_without_an_id_is_unreadable() -> None:
    with pytest.raises(netlathe.Unreadable, match="Job cannot be read"):
        _client(Server(httpx.Response(200, json={"name": "x"}))).jobs.get("job_1")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, netlathe.Unauthorized),
        (403, netlathe.Unauthorized),
        (404, netlathe.NotFound),
        (409, netlathe.Conflict),
        (413, netlathe.Invalid),
        (422, netlathe.Invalid),
        (426, netlathe.UpgradeNeeded),
        (410, netlathe.Refused),
        (500, netlathe.ServerFailed),
    ],
)
def test_a_problem_document_becomes_one_error(status: int, kind: type[netlathe.Refused]) -> None:
    document = {
        "type": "about:blank",
        "title": "Refused",
        "status": status,
        "detail": "that cannot be",
        "code": "nope",
        "errors": [{"field": "targets.0.device", "message": "unknown device", "value": "pi9"}],
        "a_later_field": 1,
    }
    with pytest.raises(netlathe.NetlatheError) as caught:
        _client(Server(httpx.Response(status, json=document))).jobs.get("job_1")
    assert type(caught.value) is kind
    assert str(caught.value) == "that cannot be (targets.0.device: unknown device)"
    assert caught.value.problem.code == "nope"
    assert caught.value.problem.errors[0].value == "pi9"


def test_an_error_without_a_document() -> None:
    with pytest.raises(netlathe.NotFound, match="404 Not Found"):
        _client(Server(httpx.Response(404, text="nothing"))).jobs.get("job_1")


def test_the_token_is_sent_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(*[httpx.Response(200, json=JOB) for _ in range(3)])
    transport = httpx.MockTransport(server)
    Client("http://server", "nl_u_given", transport=transport).jobs.get("j")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "user-token").write_text("nl_u_file\n")
    client = Client(transport=transport)
    client.jobs.get("j")
    monkeypatch.setenv("NETLATHE_TOKEN", "nl_u_environment")
    monkeypatch.setenv("NETLATHE_URL", "http://elsewhere:1/")
    other = Client(transport=transport)
    other.jobs.get("j")
    sent = [request.headers["Authorization"].removeprefix("Bearer ") for request in server.asked]
    assert sent == ["nl_u_given", "nl_u_file", "nl_u_environment"]
    assert client.url == "http://127.0.0.1:8000"
    assert str(server.asked[-1].url) == "http://elsewhere:1/api/v1/jobs/j"
    assert repr(other) == "Client('http://elsewhere:1')"


def test_the_local_servers_token_is_not_shown_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NETLATHE_DATA_DIR")
    monkeypatch.setattr("netlathe.credentials.data_dir", lambda: tmp_path)
    (tmp_path / "user-token").write_text("nl_u_local")
    server = Server(*[httpx.Response(200, json=JOB) for _ in range(3)])
    for url in ("http://127.0.0.1:1", "http://[::1]:1", "https://elsewhere.example"):
        Client(url, transport=httpx.MockTransport(server)).jobs.get("j")
    assert [request.headers.get("Authorization") for request in server.asked] == [
        "Bearer nl_u_local",
        "Bearer nl_u_local",
        None,
    ]


def test_results_are_typed_and_unknown_fields_ignored() -> None:
    answer = JOB | {
        "created_at": "2026-11-21T01:02:03Z",
        "best": {"accuracy": 0.9, "latency_ms": {"dev_1": {"predicted": 1.5, "measured": None, "later": 1}}, "new": 2},
        "failure": None,
        "of_version_1_7": True,
    }
    job = _client(Server(httpx.Response(200, json=answer))).jobs.get("job_1")
    assert job.created_at == datetime(2026, 11, 21, 1, 2, 3, tzinfo=UTC)
    assert job.best is not None
    assert job.best.latency_ms["dev_1"] == netlathe.Latency(predicted=1.5)
    assert job.progress == netlathe.Progress(0.5)
    assert job.raw["of_version_1_7"] is True
    assert not job.finished


def test_a_list_is_a_page() -> None:
    answer = {"items": [JOB], "total": 120, "page": 3, "page_size": 50}
    server = Server(httpx.Response(200, json=answer))
    page = _client(server).jobs.list(state="running", page=3)
    assert [job.id for job in page] == ["job_1"]
    assert (page.total, page.page, len(page)) == (120, 3, 1)
    assert dict(server.asked[0].url.params) == {"state": "running", "page": "3"}


def test_the_epochs_of_a_job_are_listed() -> None:
    answer = {"items": [{"network": "control", "epoch": 1, "epochs": 2, "loss": 0.5, "accuracy": 0.9}]}
    server = Server(httpx.Response(200, json=answer))
    assert _client(server).jobs.training("half") == answer
    assert server.asked[0].url.path == "/api/v1/jobs/half/training"


def test_the_layers_of_a_finalist_are_typed() -> None:
    row = {"layer": "conv1", "before": 32, "after": 20, "latency_ms": {"dev_1": [0.08, 0.049]}, "reason": "32 -> 20"}
    server = Server(httpx.Response(200, json={"items": [row], "strategy": "greedy"}))
    (layer,) = _client(server).jobs.layers("half", evaluation="evl_1")
    assert (layer.before, layer.after, layer.latency_ms, layer.raw) == (32, 20, {"dev_1": (0.08, 0.049)}, row)
    assert server.asked[0].url.path == "/api/v1/jobs/half/layers"
    assert dict(server.asked[0].url.params) == {"evaluation": "evl_1"}


def test_an_upload_is_whole_at_each_retry_and_named_by_content(tmp_path: Path) -> None:
    path = tmp_path / "My Net.v2.onnx"
    path.write_bytes(b"onnx" * 1000)
    made = {"id": "mdl_1", "name": "n", "groups": [{"name": "conv1", "width": 16, "prunable": True}]}
    server = Server(httpx.Response(502), httpx.Response(201, json=made))
    model = _client(server).models.create(path, preprocessing={"mean": [0.5]})
    assert model.groups == (netlathe.ChannelGroup("conv1", 16, True),)
    assert all(b"onnx" * 1000 in request.content for request in server.asked)
    name = netlathe.default_name(path, {"mean": [0.5]})
    assert name.encode() in server.asked[1].content
    assert name.startswith("my-net.v2-")
    assert name != netlathe.default_name(path, None)


def test_the_output_that_is_scored_goes_up_with_the_network(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"onnx")
    server = Server(httpx.Response(201, json={"id": "mdl_1", "name": "n"}))
    _client(server).models.create(path, output="scores")
    content = server.asked[0].content
    assert b'name="output"\r\n\r\nscores' in content
    assert netlathe.default_name(path, None, "scores").encode() in content


def test_an_upload_that_is_still_being_checked_is_awaited(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(b"x")
    checking = {"id": "dts_1", "name": "d", "state": "checking"}
    server = Server(
        httpx.Response(202, json=checking),
        httpx.Response(200, json=checking),
        httpx.Response(200, json=checking | {"state": "ready", "classes": 10}),
    )
    assert _client(server).datasets.create(path, "d").classes == 10
    assert [request.url.path for request in server.asked[1:]] == ["/api/v1/datasets/dts_1"] * 2


def test_an_upload_that_the_later_check_refuses(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(b"x")
    refused = {"id": "dts_1", "name": "d", "state": "refused", "problem": {"detail": "y_train: label 12 of 10 classes"}}
    server = Server(httpx.Response(202, json=refused | {"state": "checking"}), httpx.Response(200, json=refused))
    with pytest.raises(netlathe.Invalid, match="label 12 of 10 classes"):
        _client(server).datasets.create(path, "d")


ARTIFACT = netlathe.Artifact("art_1", "onnx", "../net.onnx", 5, hashlib.sha256(b"hello").hexdigest())


def test_a_download_is_checked_and_stays_in_its_folder(tmp_path: Path) -> None:
    server = Server(httpx.Response(200, content=b"hello"))
    path = _client(server).artifacts.download(ARTIFACT, tmp_path / "out")
    assert path == tmp_path / "out" / "net.onnx"
    assert path.read_bytes() == b"hello"


def test_a_damaged_download_leaves_nothing(tmp_path: Path) -> None:
    server = Server(httpx.Response(200, content=b"hullo"), httpx.Response(200, content=b"hullo"))
    with pytest.raises(netlathe.Damaged, match="the server announced"):
        _client(server).artifacts.download(ARTIFACT, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_job_without_files_yet_says_so(tmp_path: Path) -> None:
    nothing = {"items": [], "total": 0, "page": 1, "page_size": 50}
    server = Server(httpx.Response(200, json=nothing), httpx.Response(200, json=JOB | {"state": "queued"}))
    with pytest.raises(netlathe.Conflict, match="job j is queued and has no files yet"):
        _client(server).jobs.download("j", tmp_path)


def test_a_folder_that_is_a_file_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    artifact = netlathe.Artifact("art_1", "a.onnx", "model", 1, "0" * 64)
    with pytest.raises(netlathe.Invalid, match="folder: is a file; give a folder"):
        _client(Server()).artifacts.download(artifact, tmp_path / "out")


@pytest.mark.parametrize(
    ("url", "says"), [("127.0.0.1:1", "must begin with http://"), ("http://h:1/api/v1/", "leave out /api/v1")]
)
def test_an_address_that_cannot_be_right_is_refused_at_once(url: str, says: str) -> None:
    with pytest.raises(netlathe.Invalid, match=says):
        Client(url)


@pytest.mark.parametrize("ref", [".", "..", "a/b"])
def test_a_reference_that_is_a_path_is_refused(ref: str) -> None:
    with pytest.raises(netlathe.Invalid, match="job: must be an id or a name, not a path"):
        _client(Server()).jobs.get(ref)


def test_a_broken_download_starts_again(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"hel"
        raise httpx.ReadError("gone")

    server = Server(httpx.Response(200, content=broken()), httpx.Response(200, content=b"hello"))
    assert _client(server).artifacts.download(ARTIFACT, tmp_path).read_bytes() == b"hello"


def _event(number: int, kind: str, **data: object) -> str:
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"


def _stream(text: str, then: Exception | None = None) -> httpx.Response:
    def chunks() -> Iterator[bytes]:
        yield text.encode()
        if then is not None:
            raise then

    return httpx.Response(200, content=chunks(), headers={"Content-Type": "text/event-stream"})


def test_an_event_stream_is_resumed_where_it_broke() -> None:
    first = ": ping\n\n" + _event(7, "log.line", text="one") + _event(8, "job.state", state="running")
    server = Server(
        _stream(first + "id: 9\nevent: cut", httpx.ReadError("gone")),
        httpx.ConnectError("restarting"),
        _stream(_event(9, "job.state", state="succeeded")),
    )
    events = _client(server).events(["jobs", "job:1"])
    seen = [next(events) for _ in range(6)]
    assert [event.type for event in seen] == ["open", "ping", "log.line", "job.state", "open", "job.state"]
    assert [event.number for event in seen if event.number is not None] == [7, 8, 9]
    assert [request.headers.get("Last-Event-ID") for request in server.asked] == [None, "8", "8"]
    assert server.asked[0].url.params["topics"] == "jobs,job:1"


def test_a_stream_that_breaks_before_its_first_event_misses_none() -> None:
    greeting = ": from 7\nid: 7\n\n"
    server = Server(_stream(greeting, httpx.ReadError("gone")), _stream(_event(8, "job.state", state="running")))
    events = _client(server).events(["jobs"])
    assert next(event for event in events if event.type == "job.state").number == 8
    assert [request.headers.get("Last-Event-ID") for request in server.asked] == [None, "7"]


def test_a_stream_that_stays_away_is_given_up() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    server = Server(*[httpx.ConnectError("refused")] * 40)
    client = Client("http://s", "t", transport=httpx.MockTransport(server), sleep=sleep, clock=lambda: now[0])
    with pytest.raises(netlathe.Unreachable, match="lost the event stream"):
        next(client.events(["jobs"]))
    assert now[0] > 60


def test_a_refused_stream_is_not_tried_again() -> None:
    server = Server(httpx.Response(401, json={"title": "Not signed in"}))
    with pytest.raises(netlathe.Unauthorized, match="Not signed in"):
        next(_client(server).events(["jobs"]))


def _job(state: str, fraction: float, **more: object) -> httpx.Response:
    return httpx.Response(200, json=JOB | {"state": state, "progress": {"fraction": fraction}} | more)


def test_wait_follows_the_events_to_the_final_state(capsys: pytest.CaptureFixture[str]) -> None:
    best = {"accuracy": 0.9751, "latency_ms": {"dev_1": {"predicted": 1.25}}}
    events = "".join(_event(number, kind) for number, kind in enumerate(("log.line", "job.progress", "job.state")))
    server = Server(
        _job("queued", 0),
        _stream(events),
        _job("running", 0),
        _job("running", 0.4, best=best, evaluations_done=12, eta_s=40),
        _job("succeeded", 1, phase="package", verdict="met", best=best, evaluations_done=12),
    )
    job = _client(server).jobs.wait("job_1", progress=True)
    assert (job.state, job.verdict) == ("succeeded", "met")
    assert not server.answers
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == ["queued", "search", "succeeded: 12 evaluations · best 0.975 at 1.250 ms"]


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    server = Server(_job("running", 0.5), _stream(_event(1, "job.state")), _job("running", 0.7), _job("succeeded", 1))
    assert _client(server).jobs.wait("job_1", progress=True).finished
    assert "succeeded" in terminal.getvalue()
    assert "100 %" in terminal.getvalue()


def test_the_note_beside_the_bar() -> None:
    best = netlathe.Summary(accuracy=0.9751, latency_ms={"dev_1": netlathe.Latency(predicted=1.25)})
    job = netlathe.Job("job_1", "j", "running", best=best, evaluations_done=12, eta_s=40.0)
    assert note(job) == "12 evaluations · best 0.975 at 1.250 ms · 40 s left"
    waiting = netlathe.Job("job_1", "j", "running", waiting_for={"device": "pi5", "since": "now"})
    assert note(waiting) == "waiting for pi5"


def test_wait_on_a_finished_job_opens_no_stream() -> None:
    server = Server(_job("failed", 0.3, failure={"code": "device_offline", "detail": "pi5 is away"}))
    job = _client(server).jobs.wait("job_1")
    assert job.failure is not None
    assert job.failure.detail == "pi5 is away"


def test_a_measurement_is_awaited() -> None:
    queued = {"id": "mea_1", "state": "queued"}
    done = {"id": "mea_1", "state": "done", "latency_ms": 1.5, "low_ms": 1.4, "high_ms": 1.6}
    server = Server(httpx.Response(202, json=queued), httpx.Response(200, json=queued), httpx.Response(200, json=done))
    assert _client(server).devices.measure("pi5", "net").latency_ms == 1.5
    assert json.loads(server.asked[0].content) == {"model": "net"}


def test_a_new_token_shows_its_secret_but_not_in_its_repr() -> None:
    made = {"id": "tok_1", "kind": "enrolment", "name": "pi", "token": "nl_e_x", "expires_at": None}
    token = _client(Server(httpx.Response(201, json=made))).tokens.create("pi", kind="enrolment")
    assert token.token == "nl_e_x"
    assert "nl_e_x" not in repr(token)


def test_the_module_needs_only_the_base_dependencies() -> None:
    import subprocess
    import sys

    program = (
        "import sys, netlathe; heavy = {'torch', 'onnx', 'numpy', 'fastapi', 'pydantic', 'sqlalchemy', 'service'};"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout.strip() == "[]"
