"""A torch module to ONNX: through the function, and as the script that runs beside the user's code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from patience import PATIENCE_S
from torch import nn

from compress import export as export_file
from compress.export import ExportError, export, load_module

ZOO = '''
import statistics  # the standard library's, not a neighbour of the exporter
import torch
from torch import nn

assert hasattr(statistics, "mean")
print("the user's code may print")

class Gate(nn.Module):
    """A class that no other package knows."""
    def forward(self, x):
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.gate = Gate()
        self.head = nn.Linear(8, 4)
        self.drop = nn.Dropout(0.5)
    def forward(self, x):
        x = self.gate(torch.relu(self.norm(self.conv(x))))
        return self.head(self.drop(x.mean((2, 3))))

class Baked(Net):
    def forward(self, x):
        return super().forward(x).reshape(3, 4)

class Branching(Net):
    def forward(self, x):
        y = super().forward(x)
        return y * 2 if y.sum() > 0 else y

def net(): return Net()
def with_example(): return Net(), torch.zeros(1, 3, 12, 12)
def baked(): return Baked(), torch.zeros(3, 3, 12, 12)
def branching(): return Branching(), torch.zeros(3, 3, 12, 12)
def broken(): return 1 / 0
def a_number(): return 7
def quits(): raise SystemExit("no such checkpoint")
'''


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "net.py").write_text(ZOO)
    return tmp_path


@pytest.fixture
def zoo_path(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same folder on this process's own path."""
    monkeypatch.syspath_prepend(str(zoo))
    yield zoo
    for name in [name for name in sys.modules if name.split(".")[0] == "zoo"]:
        del sys.modules[name]


def _script(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, export_file.__file__, "--folder", str(folder), "--out", str(folder / "net.onnx")]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd="/", timeout=300)


def _run(data: bytes, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": images})
    return np.asarray(logits)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(images)))
        shortcut = nn.functional.pad(images[..., ::2, ::2], (0, 0, 0, 0, 1, 2))
        pooled = nn.functional.adaptive_avg_pool2d(x + shortcut, 1)
        out: torch.Tensor = self.head(torch.flatten(pooled, 1))
        return out


def _residual() -> Residual:
    torch.manual_seed(0)
    module = Residual()
    module.norm.load_state_dict(
        {"weight": torch.rand(6), "bias": torch.randn(6), "running_mean": torch.randn(6), "running_var": torch.rand(6)},
        strict=False,
    )
    return module


def test_batch_norm_is_kept_and_the_batch_is_free() -> None:
    module = _residual()
    data = export(module, (3, 8, 8))
    model = onnx.load_from_string(data)
    kinds = [node.op_type for node in model.graph.node]
    first = kinds.index("Conv")
    assert kinds[first : first + 3] == ["Conv", "BatchNormalization", "Relu"]
    assert {"Slice", "Pad", "Add", "Gemm"} <= set(kinds)
    assert not {"Identity", "Cast", "CastLike", "Dropout"} & set(kinds)
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["logits"]
    for batch in (1, 2, 7):
        images = np.random.default_rng(batch).standard_normal((batch, 3, 8, 8), np.float32)
        with torch.no_grad():
            expected = module.eval()(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(_run(data, images), expected, atol=1e-5)


def test_the_module_is_left_in_the_mode_it_was_in() -> None:
    module = _residual().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    export(module, (3, 8, 8))
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_no_source_path_travels() -> None:
    data = export(_residual(), (3, 8, 8))
    assert b".py" not in data
    assert str(Path(__file__).parent).encode() not in data


def test_every_output_has_a_name() -> None:
    class Two(nn.Module):
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"classes": images.mean((2, 3)), "features": images * 2}

    model = onnx.load_from_string(export(Two(), (3, 4, 4)))
    assert [value.name for value in model.graph.output] == ["logits", "output_1"]


def test_a_module_that_returns_no_tensor() -> None:
    class Text(nn.Module):
        def forward(self, images: torch.Tensor) -> str:
            return "cat"

    with pytest.raises(ExportError, match="must return tensors, but it returned str"):
        export(Text(), (3, 4, 4))


def test_disagreement_with_onnxruntime_is_an_error() -> None:
    class Noisy(nn.Module):
        """Gives something else at each call, as a forgotten random augmentation does."""

        calls = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            Noisy.calls += 1
            return images.mean((2, 3)) * Noisy.calls

    with pytest.raises(ExportError, match=r"logits at batch 1: torch and onnxruntime differ by 0\.\d+"):
        export(Noisy(), (3, 4, 4))


def test_script_exports_a_class_only_the_users_folder_knows(zoo: Path) -> None:
    done = _script(zoo, "--model", "zoo.net:with_example")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["input_shape"] == [3, 12, 12]
    data = (zoo / "net.onnx").read_bytes()
    assert answer["size_bytes"] == len(data)
    assert _run(data, np.zeros((5, 3, 12, 12), np.float32)).shape == (5, 4)
    assert str(zoo).encode() not in data


@pytest.mark.parametrize("kind", ["pt", "nested", "safetensors"])
def test_weights_are_loaded(zoo_path: Path, kind: str) -> None:
    module, _, _ = load_module("zoo.net:net", (3, 12, 12), None)
    state = module.state_dict()
    path = zoo_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    elif kind == "nested":
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, path)
    else:
        torch.save(state, path)
    loaded, _, _ = load_module("zoo.net:net", (3, 12, 12), path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in state.items())


def test_weights_that_do_not_fit(zoo_path: Path) -> None:
    torch.save({"head.weight": torch.zeros(4, 9)}, zoo_path / "weights.pt")
    with pytest.raises(ExportError, match=r"weights\.pt does not fit the module: .*conv\.weight"):
        load_module("zoo.net:net", (3, 12, 12), zoo_path / "weights.pt")


def test_a_file_that_is_no_state_dictionary_is_told_how_to_save_one(zoo_path: Path) -> None:
    (zoo_path / "wrong.pt").write_bytes(b"no pickle")
    torch.save([1, 2], zoo_path / "list.pt")
    for name in ("wrong.pt", "list.pt"):
        with pytest.raises(ExportError) as caught:
            load_module("zoo.net:net", (3, 12, 12), zoo_path / name)
        assert caught.value.detail == (
            f'{name} is not a state dictionary: save one with torch.save(net.state_dict(), "weights.pt")'
        )


def test_weights_that_are_no_file_are_told_in_words(zoo_path: Path) -> None:
    for path, says in ((zoo_path / "gone.pt", "there is no file"), (zoo_path, "is a folder")):
        with pytest.raises(ExportError, match=says):
            load_module("zoo.net:net", (3, 12, 12), path)


def test_pickled_code_is_not_run(zoo_path: Path) -> None:
    class Boom:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (zoo_path / "owned",))

    torch.save({"state_dict": Boom()}, zoo_path / "evil.pt")
    with pytest.raises(ExportError, match=r"evil\.pt"):
        load_module("zoo.net:net", (3, 12, 12), zoo_path / "evil.pt")
    assert not (zoo_path / "owned").exists()


def _line_of(text: str) -> str:
    return f"net.py:{next(number for number, line in enumerate(ZOO.splitlines(), 1) if text in line)}"


@pytest.mark.parametrize(
    ("spec", "shape", "step", "detail", "where"),
    [
        ("zoo.net:broken", None, "factory", "ZeroDivisionError: division by zero", "return 1 / 0"),
        ("zoo.net:quits", None, "factory", "SystemExit: no such checkpoint", "raise SystemExit"),
        ("zoo.net:a_number", None, "factory", "must return a torch module, but it returned int", None),
        ("zoo.net:missing", None, "spec", "zoo.net has no attribute 'missing'", None),
        ("nowhere:net", None, "spec", "there is no module 'nowhere' in this folder or installed", None),
        ("zoo.net", None, "spec", "expected package.module:factory, got 'zoo.net'", None),
        ("zoo.net:net", None, "input_shape", "give --input-shape", None),
        ("zoo.net:with_example", (3, 8, 8), "input_shape", "(3, 8, 8)", None),
        ("zoo.net:net", (1, 8, 8), "forward", "of shape 1,8,8", "self.conv(x)"),
        ("zoo.net:baked", None, "forward", "a batch of 1 of shape 3,12,12", ".reshape(3, 4)"),
    ],
)
def test_an_error_says_what_went_wrong_and_where(
    zoo_path: Path, spec: str, shape: tuple[int, ...] | None, step: str, detail: str, where: str | None
) -> None:
    with pytest.raises(ExportError) as caught:
        export(*load_module(spec, shape, None))
    assert caught.value.step == step
    assert detail in caught.value.detail
    assert caught.value.where == (_line_of(where) if where else None)


@pytest.mark.parametrize(
    ("arguments", "step", "where"),
    [
        (("--model", "zoo.net:branching"), "trace", "if y.sum() > 0"),
        (("--model", "zoo.net:with_example", "--weights", "/nowhere.pt"), "weights", None),
    ],
)
def test_script_answers_a_failure_in_one_line(
    zoo: Path, arguments: tuple[str, ...], step: str, where: str | None
) -> None:
    done = _script(zoo, *arguments)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line != "the user's code may print"]
    assert len(lines) == 1, done.stderr
    answer = json.loads(lines[0])
    assert (answer["step"], answer["where"]) == (step, _line_of(where) if where else None)
    assert not (zoo / "net.onnx").exists()


def test_the_file_imports_nothing_of_ours() -> None:
    program = (
        f"import runpy, sys; runpy.run_path({export_file.__file__!r}, run_name='exporter'); "
        "print(sorted({name.split('.')[0] for name in sys.modules} "
        "& {'compress', 'search', 'service', 'workers', 'hw_profiles', 'netlathe', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout.strip() == "[]", done.stderr
