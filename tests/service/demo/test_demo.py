"""The parts of the demo that need no server: the check in a clean process, intervals, reading the child's address."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE_S

from netlathe import Client, Summary
from service.demo import demo
from service.demo.demo import Checked, Prepared, _check, _compare, _save_images
from service.processes.own_server import ServerDied, _said_url, embedded_server
from service.verbs.terminal import CommandFailed
from workers.reporting.clean_process import SCRIPT


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """A network that answers class 1 to bright images, and images of which it gets all but one right."""
    import torch
    from torch import nn

    from compress.export import export

    class Bright(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            light = images.mean((1, 2, 3)).unsqueeze(1)
            return torch.cat([-light, light], 1)

    model, data = tmp_path / "bright.onnx", tmp_path / "data.npz"
    model.write_bytes(export(Bright(), (1, 4, 4)))
    images = np.repeat(np.array([0, 255, 0, 255], np.uint8), 16).reshape(4, 4, 4, 1)
    labels = np.array([0, 1, 0, 0])
    np.savez(data, x_val=images, y_val=labels, x_test=images[:2], y_test=labels[:2])
    return Prepared(model, data, mean=0.5, std=0.5)


def test_a_clean_process_counts_what_is_right(prepared: Prepared) -> None:
    found = _check(prepared, prepared.model)[prepared.model]
    assert found.right == {"val": 3, "test": 2}
    assert found.count == {"val": 4, "test": 2}
    assert len(found.sha256) == 64


def test_a_file_that_does_not_load_is_one_line(prepared: Prepared) -> None:
    broken = prepared.model.with_name("broken.onnx")
    broken.write_bytes(prepared.model.read_bytes()[:100])
    with pytest.raises(CommandFailed, match="the clean process failed: "):
        _check(prepared, broken)


def test_the_check_refuses_a_process_with_our_packages(prepared: Prepared) -> None:
    _save_images(prepared, prepared.model.parent)
    names = ("bright.onnx", "x_val.npy", "logits.npy")
    model, images, logits = (str(prepared.model.with_name(name)) for name in names)
    program = f"import sys, runpy, netlathe; sys.argv = {['x', model, images, '2', 'scored', logits]!r}; "
    program += f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert "not clean: it imported netlathe" in done.stderr


def test_reported_accuracies_must_be_those_of_the_file() -> None:
    checked = Checked("", {"val": 490, "test": 390}, {"val": 500, "test": 400})
    _compare(Summary(accuracy=0.98, test_accuracy=0.9775), checked)
    with pytest.raises(CommandFailed, match=r"gets 490 of 500 val images right, but the job reported 0\.99"):
        _compare(Summary(accuracy=0.99, test_accuracy=0.975), checked)
    with pytest.raises(CommandFailed, match="no accuracy on its test part"):
        _compare(Summary(accuracy=0.98), checked)


def test_the_servers_address_is_found_among_other_lines() -> None:
    assert _said_url("INFO: started\n") is None
    assert _said_url('INFO\n{\n  "url": "http://127') is None
    assert _said_url('INFO\n{\n  "url": "http://127.0.0.1:5"\n}\nINFO: more {}\n') == "http://127.0.0.1:5"


def _processes_of(folder: Path) -> list[str]:
    """Command lines of the processes whose command or environment names a folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes()
                if str(folder).encode() in command + (process / "environ").read_bytes():
                    found.append(command.replace(b"\0", b" ").decode())
    return found


def _environments_of(folder: Path) -> list[list[str]]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                environment = (process / "environ").read_bytes().decode()
                if str(folder) in environment:
                    found.append(environment.split("\0"))
    return found


def test_the_embedded_server_answers_and_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETLATHE_LOCK_DIR", str(tmp_path))
    monkeypatch.setenv("NETLATHE_MAX_UPLOAD_BYTES", "not for this one")
    with embedded_server(tmp_path / "data", tmp_path / "server.log") as url:
        with Client(url, (tmp_path / "data" / "user-token").read_text().strip()) as client:
            assert client.ready()["store"] == "ok"
            assert client.jobs.list().total == 0
        found = _processes_of(tmp_path)
        assert found
        environments = _environments_of(tmp_path)
        assert len(environments) >= len(found)
        for environment in environments:
            assert f"NETLATHE_LOCK_DIR={tmp_path}" in environment  # else it would compute while others measure
            assert not any(each.startswith("NETLATHE_MAX_UPLOAD_BYTES=") for each in environment)
    end_s = time.monotonic() + PATIENCE_S
    while _processes_of(tmp_path) and time.monotonic() < end_s:
        time.sleep(0.1)  # Ray's idle workers end a moment after their raylet
    assert _processes_of(tmp_path) == []


@pytest.mark.long
def test_the_demo_is_met_twice_and_leaves_no_process(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    environment.pop("KEEP", None)
    (tmp_path / "tmp").mkdir()
    for _ in range(2):
        command = [sys.executable, "-c", "from service.cli import main; main()", "demo", "--json"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800, check=False
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["verdict"] == "met"
        assert Path(answer["file"]).is_file()
        assert answer["best"]["accuracy"] >= answer["control"]["accuracy"] - 0.02
        assert _processes_of(tmp_path) == []
        assert list((tmp_path / "tmp").glob("netlathe-demo-*")) == []


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with (
        pytest.raises(ServerDied, match=r"the server ended with code \d+: netlathe: "),
        embedded_server(tmp_path / "data", tmp_path / "server.log"),
    ):
        pass


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, False),
        ("", False),
        ("0", False),
        ("false", False),
        ("No", False),
        ("off", False),
        ("1", True),
        ("yes", True),
    ],
)
def test_the_server_is_kept_only_if_asked(
    value: str | None, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEEP", raising=False)
    if value is not None:
        monkeypatch.setenv("KEEP", value)
    asked: list[bool] = []

    def no_server(_data_dir: Path, _log: Path, *, keep: bool) -> contextlib.AbstractContextManager[str]:
        asked.append(keep)
        raise ServerDied("not started here")

    monkeypatch.setattr("service.demo.demo.embedded_server", no_server)
    monkeypatch.setattr("service.demo.demo._train", lambda *_: None)
    monkeypatch.setattr("service.demo.demo.FOLDER", tmp_path / "netlathe-demo")
    with pytest.raises(ServerDied):
        demo.run(as_json=True)
    assert asked == [kept]
