"""Export a torch module to an ONNX file that keeps its batch norms, on the user's machine and never on the server.

It imports nothing of Netlathe except importing/agreement.py, so that it also runs as a script in a child process with
only the user's code:

    python -P export.py --model package.module:factory --folder . --out net.onnx [--input-shape 3,32,32]
                        [--weights net.pt|net.safetensors]

The script prints one line of JSON about the written file on stdout. If it fails, it prints one line of JSON with the
error and its place on stderr.

    ExportError(step, detail, where)    everything that can go wrong with a user's module
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import importlib.util
import io
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx
    import torch

OPSET = 20
_SAVE_IT = 'save one with torch.save(net.state_dict(), "weights.pt")'
CHECKED_BATCHES = (1, 3)
# Warnings that torch raises about its own code during export: about LSTM and GRU, and about functions that it calls.
_OF_ITS_OWN = (
    r"`isinstance\(treespec, LeafSpec\)`",
    r"The tensor attributes? .*_flat_weights",
    r"_check_is_size will be removed",
)


class ExportError(Exception):
    """A user's module that cannot be exported: the step, what was wrong, and where in the user's code."""

    def __init__(self, step: str, detail: str, where: str | None = None) -> None:
        super().__init__(f"{step}: {detail}" + (f" ({where})" if where else ""))
        self.step, self.detail, self.where = step, detail, where


def export(module: torch.nn.Module, input_shape: Sequence[int], example: torch.Tensor | None = None) -> bytes:
    """Return the module in eval mode as ONNX bytes: input `image` (batch, *input_shape), first output `logits`.

    Constants are folded and unused nodes removed, but Conv and BatchNormalization stay apart. Metadata, which holds
    source paths, is stripped. The outputs are compared with torch's at two batch sizes.

    Raises:
        ExportError: the module cannot be traced, fixes the batch size, or disagrees with onnxruntime.
    """
    import torch

    was_training = module.training
    module.eval()
    try:
        images = _images(tuple(input_shape), example)
        with _quiet_torch(), torch.no_grad():
            outputs = _forward(module, images)
            model = _trace(module, images, len(outputs))
        _strip_metadata(model)
        data: bytes = model.SerializeToString()
        _compare(module, data, images)
    finally:
        module.train(was_training)
    return data


def _images(input_shape: tuple[int, ...], example: torch.Tensor | None) -> torch.Tensor:
    """Return the largest checked batch, (3, *input_shape): the example's rows, then noise from a fixed seed."""
    import torch

    count = max(CHECKED_BATCHES)
    images = torch.randn((count, *input_shape), generator=torch.Generator().manual_seed(0))
    if example is not None:
        rows = example.detach().to("cpu", torch.float32)[:count]
        images[: len(rows)] = rows
    return images


def _forward(module: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Return the module's output tensors in order; a tuple, list or dictionary of outputs is flattened."""
    import torch

    try:
        found = torch.utils._pytree.tree_leaves(module(images))
    except Exception as error:
        seen = f"a batch of {len(images)} of shape {','.join(map(str, images.shape[1:]))}"
        raise ExportError("forward", f"{seen}: {_line(error)}", _place(error)) from error
    if not found or not all(isinstance(output, torch.Tensor) for output in found):
        kinds = ", ".join(sorted({type(output).__name__ for output in found})) or "nothing"
        raise ExportError("forward", f"the module must return tensors, but it returned {kinds}")
    return found


def _trace(module: torch.nn.Module, images: torch.Tensor, outputs: int) -> onnx.ModelProto:
    import onnxscript.optimizer
    import torch

    names = ["logits", *(f"output_{index}" for index in range(1, outputs))]
    try:
        program = torch.onnx.export(
            module,
            (images,),
            input_names=["image"],
            output_names=names,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    except Exception as error:
        cause = error.__cause__ or error
        raise ExportError("trace", _line(cause), _place(cause)) from error
    assert program is not None, "torch.onnx.export(dynamo=True) returns a program"
    onnxscript.optimizer.fold_constants(program.model)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    return program.model_proto


def _strip_metadata(model: onnx.ModelProto) -> None:
    """Remove docstrings and metadata of the model and everything in it: torch writes source paths there."""
    import onnx

    graphs = [model.graph]
    for holder in (model, *model.functions):
        _clear(holder)
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            _clear(graph)
            for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
                _clear(value)
            nodes.extend(graph.node)
        while nodes:
            node = nodes.pop()
            _clear(node)
            inner = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
            graphs.extend(inner)


def _clear(holder: Any) -> None:
    for field in ("doc_string", "metadata_props"):
        holder.ClearField(field)


def _compare(module: torch.nn.Module, data: bytes, images: torch.Tensor) -> None:
    """Raise unless onnxruntime's outputs equal torch's, up to rounding, at every checked batch size."""
    import torch

    for batch in CHECKED_BATCHES:
        with torch.no_grad():
            expected = [output.numpy() for output in _forward(module, images[:batch])]
        seen = _run(data, images[:batch])
        for (name, output), truth in zip(seen.items(), expected, strict=True):
            noise = functools.partial(_noise, data, images[:batch], name, output)
            _compare_output(f"{name} at batch {batch}", output, truth, noise)


def _compare_output(label: str, output: Any, truth: Any, noise: Callable[[], float]) -> None:
    if output.shape != truth.shape:
        raise ExportError("compare", f"{label}: onnxruntime gives {output.shape}, torch {truth.shape}")
    found = _agreement().judge(output, truth, noise)
    if not found.holds:
        raise ExportError(
            "compare",
            f"{label}: torch and onnxruntime differ by {found.difference:.2g} of the output's scale, "
            f"expected <= {found.tolerance:.2g}",
        )


def _noise(data: bytes, images: torch.Tensor, name: str, optimised: Any) -> float:
    """Return how much onnxruntime's optimiser changes its own output."""
    return float(_agreement().relative_difference(optimised, _run(data, images, optimise=False)[name]))


@functools.cache
def _agreement() -> Any:
    """Load compress/importing/agreement.py by path: as a script, this file is not part of a package."""
    name = "netlathe_agreement"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "importing" / "agreement.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # because dataclasses look it up there
    spec.loader.exec_module(module)
    return module


def _run(data: bytes, images: torch.Tensor, *, optimise: bool = True) -> dict[str, Any]:
    """Return the output arrays by name, from onnxruntime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        arrays = session.run(None, {"image": images.numpy()})
    except Exception as error:  # onnxruntime's errors have no common base below Exception
        raise ExportError("compare", f"onnxruntime cannot run the exported file: {_line(error)}") from error
    return dict(zip((output.name for output in session.get_outputs()), arrays, strict=True))


@contextlib.contextmanager
def _quiet_torch() -> Iterator[None]:
    """Silence torch's exporter: it warns about its own code and prints whole graphs, which do not help a user."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            for told in _OF_ITS_OWN:
                warnings.filterwarnings("ignore", message=told)
            yield
    finally:
        logger.setLevel(level)


def load_module(
    spec: str, input_shape: Sequence[int] | None, weights: Path | None
) -> tuple[torch.nn.Module, tuple[int, ...], torch.Tensor | None]:
    """Return (module, input shape without the batch, example or None) of `package.module:factory`.

    The factory returns the module or (module, example); the example gives the input shape if none is passed.

    Raises:
        ExportError: the spec, the factory or the weights are wrong, or no input shape is given.
    """
    import torch

    made = _call_factory(spec)
    module, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, torch.nn.Module):
        raise ExportError("factory", f"{spec} must return a torch module, but it returned {type(module).__name__}")
    if example is not None and not isinstance(example, torch.Tensor):
        raise ExportError("factory", f"the example of {spec} must be a tensor, got {type(example).__name__}")
    module = module.to("cpu")
    if weights is not None:
        _load_weights(module, weights)
    if input_shape is None:
        if example is None:
            raise ExportError("input_shape", f"{spec} returns no example: give --input-shape, such as 3,32,32")
        input_shape = tuple(example.shape[1:])
    elif example is not None and tuple(example.shape[1:]) != tuple(input_shape):
        raise ExportError("input_shape", f"{tuple(input_shape)} is not the example's {tuple(example.shape[1:])}")
    return module, tuple(input_shape), example


def _call_factory(spec: str) -> object:
    import torch

    module_name, colon, attribute = spec.partition(":")
    if not (module_name and colon and attribute):
        raise ExportError("spec", f"expected package.module:factory, got {spec!r}")
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _user_error("import", error) from error
        raise ExportError("spec", f"there is no module {error.name!r} in this folder or installed") from error
    except BaseException as error:
        raise _user_error("import", error) from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ExportError("spec", f"{module_name} has no attribute {attribute!r}")
        found = getattr(found, name)
    if isinstance(found, torch.nn.Module):
        return found
    if not callable(found):
        raise ExportError("factory", f"{spec} is a {type(found).__name__}, not a function that returns a module")
    try:
        return found()
    except BaseException as error:
        raise _user_error("factory", error) from error


def _load_weights(module: torch.nn.Module, path: Path) -> None:
    """Load a state dictionary strictly; `{"state_dict": ...}` and DataParallel's `module.` are unwrapped."""
    if not path.is_file():
        raise ExportError("weights", f"{path} is a folder" if path.is_dir() else f"there is no file {path}")
    try:
        state = _read_state(path)
    except ImportError:
        raise
    except Exception as error:  # torch's text would advise to load the file unsafely
        raise ExportError("weights", f"{path.name} is not a state dictionary: {_SAVE_IT}") from error
    inner = state.get("state_dict")
    if isinstance(inner, Mapping):
        state = inner
    if state and all(str(name).startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    try:
        module.load_state_dict(state)
    except Exception as error:
        raise ExportError("weights", f"{path.name} does not fit the module: {_line(error, limit=600)}") from error


def _read_state(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        loaded: object = load_file(path, device="cpu")
    else:
        import torch

        loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, Mapping):
        raise TypeError(f"expected a state dictionary, got {type(loaded).__name__}")
    return loaded


def _user_error(step: str, error: BaseException) -> ExportError:
    if isinstance(error, KeyboardInterrupt):
        raise error
    return ExportError(step, _line(error), _place(error))


def _line(error: BaseException, limit: int = 300) -> str:
    """Return the error as one short line, since torch's messages run over pages."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:limit]}" if text else type(error).__name__


def _place(error: BaseException) -> str | None:
    """Return the innermost frame outside torch and this file, as `net.py:12`; None if there is none."""
    import torch

    ours = (str(Path(torch.__file__).parent), __file__, importlib.__file__, "<frozen")
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(ours):
            return f"{Path(frame.filename).name}:{frame.lineno}"
    return None


def _shape(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"expected sizes such as 3,32,32, got {text!r}")
    return tuple(int(part) for part in parts)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Export a torch module to ONNX with its batch norms kept.")
    parser.add_argument("--model", required=True, help="package.module:factory")
    parser.add_argument("--input-shape", type=_shape, help="one sample's shape, such as 3,32,32")
    parser.add_argument("--weights", type=Path, help="state dictionary: .pt (weights only) or .safetensors")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="folder to put first on sys.path")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a script: return 0 with a line of JSON on stdout, or 1 with a line of JSON on stderr."""
    asked = _parse(arguments)
    logging.disable(logging.CRITICAL)  # torch logs whole graphs in addition to the errors it raises
    sys.path.insert(0, str(asked.folder.resolve()))
    try:
        # Output of the user's code must not mix with the answer on stdout.
        with contextlib.redirect_stdout(sys.stderr):
            module, shape, example = load_module(asked.model, asked.input_shape, asked.weights)
            data = export(module, shape, example)
            asked.out.write_bytes(data)
    except ImportError as error:
        _answer(sys.stderr, step="install", detail=f"{_line(error)}; pip install 'netlathe[export]'", where=None)
    except OSError as error:
        _answer(sys.stderr, step="write", detail=_line(error), where=None)
    except ExportError as error:
        _answer(sys.stderr, step=error.step, detail=error.detail, where=error.where)
    else:
        _answer(sys.stdout, out=str(asked.out), input_shape=shape, size_bytes=len(data))
        return 0
    return 1


def _answer(stream: Any, **fields: object) -> None:
    stream.write(json.dumps(fields) + "\n")


if __name__ == "__main__":
    # The script's folder is first on sys.path, and its modules may hide others such as `statistics`.
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    raise SystemExit(main())
