"""The command line against a fake server: exit codes, --json, what it says when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import typer
from patience import PATIENCE_S

import netlathe
from service.cli import build, run
from service.verbs.report import print_networks, score

VERBS = (
    *("serve", "conduct", "agent", "submit", "jobs", "show", "cancel", "pause", "resume", "retry", "artifacts"),
    *("devices", "table", "predict", "measure", "preflight", "tokens", "migrate", "demo", "doctor"),
)

SUMMARY = {
    "evaluation_id": "evl_1",
    "strategy": "greedy",
    "accuracy": 0.975,
    "accuracy_drop": {"mean": 0.002, "low": -0.0019, "high": 0.0059, "n": 500},
    "test_accuracy": 0.9711,
    "latency_ms": {"dev_1": {"predicted": 1.21, "low": 1.15, "high": 1.27, "measured": 1.234, "measured_high": 1.24}},
    "macs": 40_550_000,
    "parameters": 269_722,
    "size_bytes": 1_108_853,
}
JOB: dict[str, Any] = {
    "id": "job_1",
    "name": "half",
    "state": "succeeded",
    "verdict": "met",
    "phase": "package",
    "progress": {"fraction": 1.0},
    "evaluations_done": 12,
    "targets": [{"device": "dev_1", "device_name": "local-onnxruntime-t1-fp32", "max_latency_ratio": 0.5}],
    "original": SUMMARY | {"strategy": None, "accuracy": 0.98, "accuracy_drop": None},
    "best": SUMMARY,
}
DEVICE: dict[str, Any] = {
    "id": "dev_1",
    "name": "local-onnxruntime-t1-fp32",
    "state": "online",
    "runtime": "onnxruntime",
}
DEVICE |= {"runtime_version": "1.31.1", "kind": "cpu", "coverage": 0.5}


class Server:
    """Answers by method and path; anything else is a 404 problem."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], httpx.Response | Callable[[httpx.Request], httpx.Response]] = {}
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        answer = self.answers.get((request.method, request.url.path.removeprefix("/api/v1")))
        if answer is None:
            return httpx.Response(404, json={"title": "Not found", "detail": f"there is no {request.url.path}"})
        return answer if isinstance(answer, httpx.Response) else answer(request)

    def on(self, method: str, path: str, body: Any, status: int = 200) -> None:
        self.answers[method, path] = httpx.Response(status, json=body)

    def body(self, path: str) -> Any:
        """What was posted to a path, read as JSON."""
        (request,) = [request for request in self.asked if request.url.path == f"/api/v1{path}"]
        return json.loads(request.content)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    client = netlathe.Client

    def connected() -> netlathe.Client:
        return client("http://server", "t", transport=httpx.MockTransport(made), retries=0, sleep=lambda _: None)

    monkeypatch.setattr(netlathe, "Client", connected)
    return made


def _page(*items: object) -> dict[str, Any]:
    return {"items": list(items), "total": len(items), "page": 1, "page_size": 50}


@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches_by_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"netlathe {verb}" in shown.partition("Usage:")[2].partition("\n")[2], "no example"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_json(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    run([verb, "--help"])
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [*VERBS, "tokens create"])
def test_every_argument_and_option_says_what_it_is(verb: str) -> None:
    command: Any = typer.main.get_command(build())
    for name in verb.split():
        command = command.commands[name]
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{verb}: {parameter.name}"


def test_the_verbs_are_those_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    listed = capsys.readouterr().out.partition("Commands:")[2].splitlines()
    assert sorted(line.split()[0] for line in listed if line.strip()) == sorted(VERBS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["show"], "Missing argument 'JOB'"),
        (["show", "half", "--bogus"], "No such option: --bogus"),
        (["jobs", "--page", "zero"], "Invalid value for '--page'"),
        (["submit", "--model", "n", "--data", "d", "--device", "x"], "exactly one of --max-latency-ms and"),
        (["submit", "--model", "n", "--data", "d", "--max-latency-ms", "5"], "--max-latency-ms needs a --device"),
        (
            ["submit", "--model", "n", "--data", "d", "--device", "x", *(2 * ["--max-latency-ms", "5"])],
            "--max-latency-ms is given 2 times for 1 devices",
        ),
        (["submit", "--model", "n", "--data", "d", "--limit", "macs<5"], "--limit is name=number"),
        (
            ["submit", "--model", "n", "--data", "d", "--max-accuracy-drop", "0.1", "--limit", "max_accuracy_drop=0.5"],
            "--limit: max_accuracy_drop is given twice",
        ),
        (["submit", "--model", "n", "--data", "d", "--download", "out"], "--download needs --watch"),
        (["submit", "--model", "n", "--data", "d", "--method", "filter_prune={"], "--method: Expecting"),
        (["submit", "--model", "n", "--data", "d", "--preprocessing", "mean"], "--preprocessing: Expecting value"),
        (
            ["submit", "--model", "n", "--data", "d", "--preprocessing", "{}"],
            "--preprocessing: only for a file that is",
        ),
        (["submit", "--model", "n", "--data", "d", "--output", "scores"], "--output: only for a file that is"),
        (
            ["submit", "--model", "n", "--data", "d", "--layout", "NHW", "--classes", "3"],
            "--layout and --classes: only",
        ),
        (["submit", "--model", "net.pt", "--data", "d"], "pickled files are refused"),
        (["submit", "--model", "/tmp", "--data", "d"], "--model: /tmp is a folder"),
        (["submit", "--model", "n", "--data", "/tmp"], "--data: /tmp is a folder"),
        (["table", "d", "--out", "/tmp"], "--out: /tmp is a folder"),
        (["table", "d", "--import", "/tmp"], "--import: /tmp is a folder"),
        (["submit", "--model", "gone.onnx", "--data", "d"], "there is no file gone.onnx"),
        (["tokens", "create", "x", "--days", "1e9"], "--days is a number from 0.001 to 36500, got 1e+09"),
        (["tokens", "create", "x", "--days", "nan"], "--days is a number from 0.001 to 36500, got nan"),
        (["tokens", "create", "x", "--days", "0"], "--days is a number from 0.001 to 36500, got 0"),
        (["migrate", "--database-url", "foo://me:secret@host/db"], "sqlite://, got 'foo://'"),
        (["migrate", "--database-url", "secret"], "sqlite://, got no scheme"),
        (["tokens", "create", "x", "--kind", "agent"], "--kind is user or enrolment, got 'agent'"),
        (["submit", "--model", "m", "--data", "d", "--weights", "w.pt"], "are for a package.module:factory"),
        (["submit", "--model", "m", "--data", "d", "--max-accuracy-drop", "nan"], "--max-accuracy-drop"),
        (["submit", "--model", "m", "--data", "d", "--limit", "max_macs_ratio=inf"], "--limit"),
    ],
)
def test_usage_errors_are_two_lines_and_exit_2(
    server: Server, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert len(shown.err.splitlines()) == 2
    assert shown.out == ""


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, 0),
        ({"verdict": "missed"}, 1),
        ({"state": "failed", "verdict": None, "failure": {"code": "device_offline", "detail": "pi5 is away"}}, 3),
        ({"state": "cancelled", "verdict": None}, 3),
        ({"state": "running", "verdict": None, "progress": {"fraction": 0.25}}, 0),
    ],
)
def test_show_ends_with_the_verdict(
    server: Server, change: dict[str, Any], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("GET", "/jobs/half", JOB | change)
    assert run(["show", "half"]) == code
    shown = capsys.readouterr().out
    assert "half (job_1)" in shown
    if "failure" in change:
        assert "device_offline: pi5 is away" in shown


def test_show_prints_original_against_best(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("GET", "/jobs/half", JOB)
    run(["show", "half"])
    shown = capsys.readouterr().out
    for text in (
        "best (greedy)",
        "0.9750, drop +0.20 points [-0.19, +0.59]",
        "0.9711",
        "1.234 ms (predicted 1.210 [1.150, 1.270])",
        "269,722",
    ):
        assert text in shown
    assert "local-onnxruntime-t1-fp32" in shown


LAYERS: list[dict[str, Any]] = [
    {
        "layer": "conv1",
        "before": 32,
        "after": 20,
        "latency_ms": {"dev_1": [0.08, 0.049]},
        "reason": "32 -> 20: saves 0.031 ms of 0.080 ms; alone it costs 0.4 points",
    },
    {"layer": "pool", "before": None, "after": None, "latency_ms": {}, "reason": "no setting of its own"},
]


def test_show_prints_what_happened_to_each_layer(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("GET", "/jobs/half", JOB)
    server.on("GET", "/jobs/half/layers", {"items": LAYERS, "strategy": "greedy"})
    assert run(["show", "half", "--layers"]) == 0
    heading, conv, pool = capsys.readouterr().out.splitlines()
    assert heading.split() == ["layer", "width", "local-onnxruntime-t1-fp32,", "ms", "why"]
    for text in ("conv1", "32 -> 20", "0.080 -> 0.049", "saves 0.031 ms of 0.080 ms; alone it costs 0.4 points"):
        assert text in conv
    assert " ".join(pool.split()) == "pool - - no setting of its own"
    assert run(["show", "half", "--layers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == LAYERS


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_the_best_of_a_job_that_did_not_end_well_is_of_the_search(
    server: Server, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("GET", "/jobs/half", JOB | {"state": state, "verdict": None})
    run(["show", "half"])
    assert "best of the search, not verified, no file (greedy)" in capsys.readouterr().out


def test_json_is_the_servers_own(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("GET", "/jobs/half", JOB | {"of_a_later_version": 1})
    server.on("GET", "/jobs", _page(JOB))
    server.on("GET", "/devices", _page(DEVICE))
    assert run(["show", "half", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["of_a_later_version"] == 1
    assert run(["jobs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [JOB]
    assert run(["devices", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [DEVICE]


def test_with_json_errors_are_json_with_the_servers_fields(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "half", "--bogus", "--json"]) == 2
    assert json.loads(capsys.readouterr().err) == {"detail": "No such option: --bogus", "exit_code": 2}
    assert run(["show", "gone", "--json"]) == 3
    said = json.loads(capsys.readouterr().err)
    assert (said["status"], said["exit_code"]) == (404, 3)


@pytest.mark.parametrize("token", ["abc\ndef", "sécret", "two words"])
def test_a_token_that_none_can_be_is_refused_unprinted(
    token: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NETLATHE_TOKEN", token)
    assert run(["jobs"]) == 3
    said = capsys.readouterr().err
    assert "the token contains a space" in said
    assert not any(part in said for part in ("abc", "cret", "words"))


def test_lists_are_tables(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("GET", "/jobs", _page(JOB))
    server.on("GET", "/devices", _page(DEVICE))
    artifact = {"id": "art_1", "kind": "onnx", "name": "half.onnx", "size_bytes": 12345, "sha256": "ab" * 32}
    server.on("GET", "/jobs/half/artifacts", _page(artifact))
    for verb, texts in {
        "jobs": ("half", "succeeded", "met"),
        "devices": ("local-onnxruntime-t1-fp32", "online", "50%", "1.31.1"),
        "artifacts half": ("half.onnx", "12,345", "abababab"),
    }.items():
        assert run(verb.split()) == 0
        shown = capsys.readouterr().out
        assert all(text in shown for text in texts), shown


def test_an_empty_list_says_so(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("GET", "/jobs", _page())
    run(["jobs"])
    assert capsys.readouterr().out == "no jobs yet\n"


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry"])
def test_steering(server: Server, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("POST", f"/jobs/half/{verb}", JOB | {"state": "paused"})
    assert run([verb, "half"]) == 0
    assert capsys.readouterr().out == "half (job_1) is paused\n"


@pytest.mark.parametrize(("verb", "goal"), [("pause", "paused"), ("cancel", "cancelled")])
def test_steering_a_running_job_says_what_it_will_be(
    server: Server, verb: str, goal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("POST", f"/jobs/half/{verb}", JOB | {"state": "running"})
    assert run([verb, "half"]) == 0
    assert capsys.readouterr().out == f"half (job_1) is running and will be {goal} soon\n"


def test_a_refusal_is_one_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "nobody"]) == 3
    assert capsys.readouterr().err == "netlathe: there is no /api/v1/jobs/nobody\n"


def test_a_wrong_value_is_usage_and_names_the_field(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    errors = [{"field": "targets.0.device", "message": "there is no such device", "value": "pi9"}]
    server.on("POST", "/jobs", {"title": "Invalid input", "detail": "the job is wrong", "errors": errors}, 422)
    arguments = ["submit", "--model", "m", "--data", "d", "--device", "pi9", "--max-latency-ms", "5"]
    assert run(arguments) == 2
    assert capsys.readouterr().err == ("netlathe: the job is wrong (targets.0.device: there is no such device)\n")


def test_a_bug_is_one_line_too(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: httpx.Request) -> httpx.Response:
        raise LookupError("no such thing")

    server.answers["GET", "/jobs"] = broken
    assert run(["jobs"]) == 3
    assert "unexpected LookupError: no such thing" in capsys.readouterr().err
    monkeypatch.setenv("NETLATHE_TRACE", "1")
    with pytest.raises(LookupError):
        run(["jobs"])


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    for name in [name for name in sys.modules if name.startswith("service.store")]:
        monkeypatch.delitem(sys.modules, name)
    assert run(["migrate"]) == 3
    assert (
        capsys.readouterr().err
        == "netlathe: this needs sqlalchemy: pip install '.[server]' -c constraints.txt (in the clone)\n"
    )


def _upload(server: Server, path: str, id_: str) -> None:
    server.on("POST", path, {"id": id_, "name": id_}, 201)


def test_submit_uploads_what_are_files_and_sends_the_contracts_body(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"onnx")
    np.savez(tmp_path / "digits.npz", x_train=np.zeros((1, 2, 2), np.uint8), y_train=np.zeros(1, np.int64))
    _upload(server, "/models", "mdl_1")
    _upload(server, "/datasets", "dts_1")
    server.on("POST", "/jobs", JOB | {"state": "queued", "verdict": None}, 201)
    options = [
        *("submit", "--model", str(tmp_path / "net.onnx"), "--data", str(tmp_path / "digits.npz"), "--name", "half"),
        *("--device", "dev_1", "--max-latency-ratio", "0.5", "--max-accuracy-drop", "0.02"),
        *("--limit", "max_macs_ratio=0.7", "--method", 'filter_prune={"importance": "l2"}', "--method", "int8_ptq"),
        *("--strategy", "greedy", "--evaluations", "30", "--epochs", "2", "--seed", "3"),
    ]
    assert run(options) == 0
    assert server.body("/jobs") == {
        "name": "half",
        "model": "mdl_1",
        "dataset": "dts_1",
        "targets": [{"device": "dev_1", "max_latency_ratio": 0.5}],
        "limits": {"max_macs_ratio": 0.7, "max_accuracy_drop": 0.02},
        "methods": [{"name": "filter_prune", "settings": {"importance": "l2"}}, "int8_ptq"],
        "strategies": ["greedy"],
        "budget": {"evaluations": 30},
        "training": {"epochs": 2},
        "seed": 3,
        "force": False,
    }


@pytest.mark.parametrize(("limits", "sent"), [(["5"], [5.0, 5.0]), (["2", "8"], [2.0, 8.0])])
def test_each_device_has_its_own_limit_or_all_have_the_same(
    server: Server, limits: list[str], sent: list[float]
) -> None:
    server.on("POST", "/jobs", JOB | {"state": "queued", "verdict": None}, 201)
    options = [option for limit in limits for option in ("--max-latency-ms", limit)]
    assert run(["submit", "--model", "n", "--data", "d", "--device", "dev_1", "--device", "dev_2", *options]) == 0
    targets = server.body("/jobs")["targets"]
    assert targets == [
        {"device": device, "max_latency_ms": limit} for device, limit in zip(("dev_1", "dev_2"), sent, strict=True)
    ]


def test_submit_takes_names_and_leaves_defaults_to_the_server(server: Server) -> None:
    server.on("POST", "/jobs", JOB | {"state": "queued", "verdict": None}, 201)
    assert run(["submit", "--model", "resnet20", "--data", "cifar10"]) == 0
    sent = server.body("/jobs")
    assert sent == {"model": "resnet20", "dataset": "cifar10", "targets": [], "seed": 0, "force": False}


@pytest.mark.parametrize(("verdict", "code"), [("met", 0), ("missed", 1)])
def test_submit_watch_waits_and_downloads(
    server: Server, tmp_path: Path, verdict: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    import hashlib

    server.on("POST", "/jobs", JOB | {"state": "queued"}, 201)
    server.on("GET", "/jobs/job_1", JOB | {"verdict": verdict})
    artifact = {"id": "art_1", "kind": "onnx", "name": "half.onnx", "size_bytes": 4}
    server.on("GET", "/jobs/job_1/artifacts", _page(artifact | {"sha256": hashlib.sha256(b"onnx").hexdigest()}))
    server.answers["GET", "/artifacts/art_1/content"] = httpx.Response(200, content=b"onnx")
    options = ["submit", "--model", "m", "--data", "d", "--watch", "--download", str(tmp_path / "out")]
    assert run(options) == code
    assert (tmp_path / "out" / "half.onnx").read_bytes() == b"onnx"
    assert str(tmp_path / "out" / "half.onnx") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        *((["show", ""], "job"), (["show", " "], "job"), (["show", "", "--watch"], "job"), (["cancel", ""], "job")),
        *((["retry", ""], "job"), (["artifacts", ""], "job"), (["preflight", "", "--device", "d"], "model")),
        *((["predict", "", "--model", "m"], "device"), (["table", ""], "device"), (["tokens", "delete", ""], "token")),
    ],
)
def test_an_empty_reference_asks_nobody(
    server: Server, arguments: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert f"{field}: is empty" in capsys.readouterr().err
    assert not server.asked


def test_a_reference_stays_one_part_of_the_path(server: Server) -> None:
    assert run(["show", "a b?c"]) == 3
    assert server.asked[0].url.raw_path == b"/api/v1/jobs/a%20b%3Fc"


ZOO = """
import torch
class Net(torch.nn.Module):
    def forward(self, x):
        return x.mean((2, 3))
def net(): return Net()
def broken(): raise ValueError("no checkpoint here")
"""


def test_submit_exports_a_factory_of_this_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "zoo.py").write_text(ZOO)
    monkeypatch.chdir(tmp_path)
    _upload(server, "/models", "mdl_1")
    server.on("POST", "/jobs", JOB | {"state": "queued"}, 201)
    assert run(["submit", "--model", "zoo:net", "--input-shape", "3,4,4", "--data", "d"]) == 0
    (upload,) = [request for request in server.asked if request.url.path.endswith("/models")]
    assert b'filename="net.onnx"' in upload.content
    assert b"logits" in upload.content
    assert str(tmp_path).encode() not in upload.content
    assert "zoo" not in sys.modules
    capsys.readouterr()

    assert run(["submit", "--model", "zoo:broken", "--data", "d"]) == 3
    said = capsys.readouterr().err
    assert said == "netlathe: cannot export zoo:broken: ValueError: no checkpoint here (zoo.py:7)\n"

    wrong = (
        (["--model", "zoo:net", "--input-shape", "a,b"], "--input-shape: expected sizes such as 3,32,32, got 'a,b'"),
        (["--model", "zoo:net", "--weights", "zoo.py"], "--weights: zoo.py is not a state dictionary: save one with"),
        (["--model", "gone:net"], "--model: there is no module 'gone'"),
    )
    for arguments, says in wrong:
        assert run(["submit", *arguments, "--data", "d"]) == 2
        assert says in capsys.readouterr().err


def test_predict_and_measure(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [
        {"layers": ["conv1"], "latency_ms": 0.2, "source": "measured"},
        {"layers": ["conv2"], "latency_ms": None, "source": "missing"},
    ]
    known = {"latency_ms": 1.5, "low_ms": 1.4, "high_ms": 1.6, "coverage": 0.9, "missing": 1, "blocks": blocks}
    server.on("POST", "/devices/pi5/predict", known)
    assert run(["predict", "pi5", "--model", "net"]) == 0
    assert "1.500 ms [1.400, 1.600]" in capsys.readouterr().out
    server.on("POST", "/devices/pi5/predict", {"latency_ms": None, "coverage": 0.0})
    assert run(["predict", "pi5", "--model", "net", "--fill"]) == 3
    assert "use --fill to have them measured" in capsys.readouterr().out
    server.on("POST", "/devices/pi5/measurements", {"id": "mea_1", "state": "queued"}, 202)
    server.on("GET", "/measurements/mea_1", {"id": "mea_1", "state": "done", "latency_ms": 1.5})
    assert run(["measure", "pi5", "--model", "net"]) == 0
    assert capsys.readouterr().out == "1.500 ms\n"


def test_preflight(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {
        "prunable_share": {"parameters": 0.9, "macs": 0.8},
        "frozen": [{"name": "head", "reason": "an output of the network"}],
        "floor_ms": 0.25,
        "latency_ms": None,
        "coverage": 0.5,
        "layers": [{"layers": ["conv1", "relu1"], "prunable": True, "latency_ms": None, "share": None}],
        "warnings": ["few rows"],
    }
    server.on("GET", "/models/net/preflight", answer)
    assert run(["preflight", "net", "--device", "pi5"]) == 0
    shown = capsys.readouterr().out
    for text in ("80% of macs", "0.2500 ms", "head: an output of the network", "conv1, relu1", "few rows"):
        assert text in shown
    assert server.asked[0].url.params["device"] == "pi5"


def test_tables_travel_as_files(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"key": "ab", "features": {"kind": "conv", "in_channels": 16}, "latency_us": 12.34, "sigma_us": 0.1}
    server.on("GET", "/devices/pi5/table", {"rows": [row]})
    server.on("POST", "/devices/pi5/table", {"added": 1})
    out = tmp_path / "pi5.json"
    assert run(["table", "pi5", "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == {"rows": [row]}
    assert run(["table", "pi5", "--import", str(out)]) == 0
    assert "12.3" in capsys.readouterr().out
    out.write_text("{")
    assert run(["table", "pi5", "--import", str(out)]) == 2


def test_tokens(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    made = {"id": "tok_1", "kind": "enrolment", "name": "pi5", "expires_at": None}
    server.on("POST", "/tokens", made | {"token": "nl_e_secret"}, 201)
    server.on("GET", "/tokens", _page(made))
    server.answers["DELETE", "/tokens/tok_1"] = httpx.Response(204)
    assert run(["tokens", "create", "pi5", "--kind", "enrolment", "--days", "1"]) == 0
    assert capsys.readouterr().out == "nl_e_secret\n"
    assert run(["tokens"]) == 0
    assert "pi5" in capsys.readouterr().out
    assert run(["tokens", "--page", "2"]) == 0
    assert server.asked[-1].url.params["page"] == "2"
    assert run(["tokens", "delete", "tok_1"]) == 0


def test_migrate_makes_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate", "--data-dir", str(tmp_path / "new"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["revision"]
    assert (tmp_path / "new" / "netlathe.db").is_file()


def test_settings_that_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--tls-cert", "cert.pem"]) == 2
    assert "tls_cert and tls_key must be set together" in capsys.readouterr().err


def test_the_command_starts_light() -> None:
    heavy = {"torch", "onnx", "numpy", "fastapi", "sqlalchemy", "httpx", "compress", "workers"}
    program = (
        "import sys; from service.cli import run; run(['submit', '--help']); "
        f"print(sorted({heavy!r} & {{name.split('.')[0] for name in sys.modules}}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stderr.strip() == "[]"


def test_an_address_of_another_kind_is_refused_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = run(["serve", "--data-dir", str(tmp_path / "data"), "--ray-address", "ray://10.0.0.1:10001"])
    said = capsys.readouterr()
    assert code == 2
    assert "ray_address" in said.err
    assert "should match pattern" in " ".join(said.err.split())
    assert not (tmp_path / "data").exists()


def test_no_loss_has_no_minus() -> None:
    same = netlathe.AccuracyDrop(mean=0.0, low=-0.01, high=0.01, n=100)
    assert (
        score(netlathe.Summary(accuracy=0.9, accuracy_drop=same), "accuracy")
        == "0.9000, drop +0.00 points [-1.00, +1.00]"
    )


def test_zeros_have_columns_where_they_save_something(capsys: pytest.CaptureFixture[str]) -> None:
    def printed(stored_bytes: int) -> str:
        best = netlathe.Summary(parameters=1000, nonzeros=999, size_bytes=4000, stored_bytes=stored_bytes)
        print_networks(netlathe.Job(id="1", name="job", state="finished", best=best))
        return capsys.readouterr().out

    assert "stored bytes" not in printed(3999)
    assert "stored bytes" in printed(3500)
