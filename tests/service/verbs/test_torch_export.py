"""A torch module becomes an ONNX file in a child process; what goes wrong there is one line."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import typer

from service.verbs.torch_export import ExportFailed, export_in_child

MODULE = """
import os, sys
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 2))

def settings():
    raise ValueError(str(sorted(name for name in os.environ if name.startswith("NETLATHE_"))))

def question():
    input("go on? ")

def dies():
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NETLATHE_TOKEN", "nl_u_secret")
    monkeypatch.delenv("NETLATHE_LOCK_DIR", raising=False)
    (tmp_path / "mine.py").write_text(MODULE)
    return tmp_path


def test_a_module_is_written(folder: Path) -> None:
    export_in_child("mine:net", folder / "net.onnx", folder=folder, input_shape="3,2,2")
    onnx.checker.check_model(onnx.load(folder / "net.onnx"))


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("settings", r"cannot export mine:settings: .*\[\]"),  # the user's code gets none of our settings
        ("question", "cannot export mine:question: .*EOF"),
        ("dies", "cannot export mine:dies: the exporting process ended without an error message"),
    ],
)
def test_what_goes_wrong_is_one_line(factory: str, says: str, folder: Path) -> None:
    with pytest.raises(ExportFailed, match=says) as caught:
        export_in_child(f"mine:{factory}", folder / "net.onnx", folder=folder, input_shape="3,2,2")
    assert "\n" not in str(caught.value)


def test_a_wrong_argument_is_the_users(folder: Path) -> None:
    with pytest.raises(typer.BadParameter, match="input-shape"):
        export_in_child("mine:net", folder / "net.onnx", folder=folder, input_shape="3,x")
