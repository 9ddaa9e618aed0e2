"""The runtime onnxruntime on the CPU, for fp32 and QDQ int8 models alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import ExtraMissing, InvalidInput
from hw_profiles.runtimes import Arrays, Progress, Runtime
from hw_profiles.runtimes.onnxruntime.cores import big_cores, pinned
from hw_profiles.runtimes.onnxruntime.kernel_sets import kernel_sets, names_of, renamed
from hw_profiles.timing.bursts import run_bursts
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample

if TYPE_CHECKING:
    import onnxruntime

_PROVIDERS = ["CPUExecutionProvider"]
# Threads do not spin, because spinning threads of one session would disturb the session timed next. On the development
# machine, 2 threads even ran faster without spinning; no benchmark shows this.
_THREADED = (("session.intra_op.allow_spinning", "0"),)


class OnnxRuntime(Runtime):
    """Runs sequential sessions with all graph optimisations, and with inputs and outputs bound to fixed buffers."""

    name = "onnxruntime"

    def version(self) -> str:
        return str(_engine().__version__)

    def configs(self, machine: str) -> list[DeviceConfig]:
        counts = sorted({1, len(big_cores())})
        return [
            DeviceConfig(machine, "cpu", self.name, self.version(), count, options=_THREADED if count > 1 else ())
            for count in counts
        ]

    def run(self, file: bytes, inputs: Arrays, device: DeviceConfig) -> Arrays:
        try:
            session = _session(file, device)
            outputs = [output.name for output in session.get_outputs()]
            return dict(zip(outputs, session.run(outputs, dict(inputs)), strict=True))
        except ExtraMissing:
            raise
        except Exception as error:  # the engine's errors share no class
            raise InvalidInput("file", len(file), f"onnxruntime cannot run it: {error}") from error

    def time(
        self,
        files: Mapping[str, bytes],
        device: DeviceConfig,
        protocol: BurstProtocol,
        progress: Progress | None = None,
    ) -> Mapping[str, Sample | Failure]:
        calls: dict[str, Callable[[], object]] = {}
        failures: dict[str, Failure] = {}
        with pinned(device.threads) as cores:
            for key, model in files.items():
                try:
                    calls[key] = _bound_call(model, device)
                except Exception as error:  # the engine's errors share no class; the reason is sent to the caller
                    failures[key] = Failure(key, f"{type(error).__name__}: {error}"[:500], "load")
            results = run_bursts(calls, protocol, progress=progress)
        facts = {"cores": ",".join(str(core) for core in cores)}
        samples = {
            key: Sample(key, r.minima_us, r.medians_us, {**r.extra, **facts}) if isinstance(r, Sample) else r
            for key, r in results.items()
        }
        return {key: failures.get(key) or samples[key] for key in files}

    def fused(self, model: bytes) -> tuple[frozenset[str], ...]:
        original = _parse(model)
        marked = renamed(original)
        return names_of(original, kernel_sets(marked.graph, _optimised(marked).graph))


RUNTIME = OnnxRuntime()


def _engine() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ExtraMissing("the runtime 'onnxruntime'", "agent") from error
    return onnxruntime


def _parse(model: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(model)
    except Exception as error:  # protobuf's own class differs between its implementations
        raise InvalidInput("model", len(model), f"not an ONNX file: {error}") from error


def _options(threads: int) -> onnxruntime.SessionOptions:
    engine = _engine()
    options = engine.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = engine.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = engine.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options


def _session(model: bytes, device: DeviceConfig) -> onnxruntime.InferenceSession:
    """Make a session. Raises whatever the engine raises on a bad model."""
    options = _options(device.threads)
    for name, value in device.options:
        options.add_session_config_entry(name, value)
    return _engine().InferenceSession(model, options, providers=_PROVIDERS)


def _bound_call(model: bytes, device: DeviceConfig) -> Callable[[], object]:
    """Return a call that runs `model` once on fixed buffers. Raises what `_session` raises."""
    engine, session = _engine(), _session(model, device)
    binding = session.io_binding()
    rng = np.random.default_rng(0)
    for entering in session.get_inputs():
        binding.bind_ortvalue_input(entering.name, engine.OrtValue.ortvalue_from_numpy(_feed(entering, rng)))
    names = [output.name for output in session.get_outputs()]
    for name in names:
        binding.bind_output(name, "cpu")
    # The first run determines the shapes of the outputs; its buffers are then used for all other runs.
    session.run_with_iobinding(binding)
    for name, value in zip(names, binding.get_outputs(), strict=True):
        binding.bind_ortvalue_output(name, value)
    return lambda: session.run_with_iobinding(binding)


def _feed(entering: Any, rng: np.random.Generator) -> np.ndarray:
    """Return random values for a float input, zeros for any other input; symbolic sizes are 1."""
    shape = [size if isinstance(size, int) else 1 for size in entering.shape]
    dtype = _DTYPES.get(entering.type)
    if dtype is None:
        raise InvalidInput("model", entering.type, f"the type of input {entering.name!r} cannot be fed")
    drawn = rng.standard_normal(shape) if np.dtype(dtype).kind == "f" else np.zeros(shape)
    return drawn.astype(dtype)


_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


def _optimised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph as the engine runs it. Raises InvalidInput if the engine cannot load the model."""
    with tempfile.TemporaryDirectory(prefix="netlathe-") as folder:
        path = Path(folder) / "optimised.onnx"
        options = _options(1)
        options.optimized_model_filepath = str(path)
        try:
            _engine().InferenceSession(model.SerializeToString(), options, providers=_PROVIDERS)
        except ExtraMissing:
            raise
        except Exception as error:  # the engine's errors share no class
            raise InvalidInput("model", model.graph.name, f"onnxruntime cannot load it: {error}") from error
        return onnx.load(path)
