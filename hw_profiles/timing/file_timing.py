"""Times the engine's own files. An ONNX file is converted first; a file in the engine's own format is timed
unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx

from hw_profiles.device import ONNX, DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.runtimes import Progress, Runtime
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from hw_profiles.timing.timing_model import fusion_mismatch


def time_files(
    runtime: Runtime,
    paths: Mapping[str, Path],
    device: DeviceConfig,
    protocol: BurstProtocol,
    progress: Progress | None = None,
) -> Mapping[str, Sample | Failure]:
    """Time ONNX files and the engine's own files, which are told apart by their file name extensions."""
    ready = {key: path.read_bytes() for key, path in paths.items() if path.suffix != ONNX}
    models = {key: path.read_bytes() for key, path in paths.items() if path.suffix == ONNX}
    timed = time_models(runtime, models, device, protocol, progress, ready)
    return {key: timed[key] for key in paths}


def time_models(
    runtime: Runtime,
    models: Mapping[str, bytes],
    device: DeviceConfig,
    protocol: BurstProtocol,
    progress: Progress | None = None,
    ready: Mapping[str, bytes] | None = None,
) -> Mapping[str, Sample | Failure]:
    """Convert ONNX files with the runtime and time the results, interleaved with files that are already converted
    (`ready`).

    A model that cannot be converted is a Failure. A timing model of an op that does not run as one kernel keeps its
    Sample, with `suspect` set to `fusion_mismatch` in its extra.
    """
    files, failures, suspects = dict(ready or {}), dict[str, Failure](), set[str]()
    for key, model in models.items():
        try:
            files[key] = runtime.convert(model, device)
            if fusion_mismatch(onnx.load_model_from_string(model), runtime.fused):
                suspects.add(key)
        except Exception as error:  # engines share no error class; the reason is sent to the caller
            files.pop(key, None)
            failures[key] = Failure(key, why(error), "load")
    timed = runtime.time(files, device, protocol, progress)
    samples = {key: _marked(result, key in suspects) for key, result in timed.items()}
    return {key: failures.get(key) or samples[key] for key in (*models, *(ready or ()))}


def why(error: Exception) -> str:
    """Describe an engine's error in one line; our own errors are already readable."""
    return str(error if isinstance(error, InvalidInput) else f"{type(error).__name__}: {error}")[:500]


def _marked(result: Sample | Failure, suspect: bool) -> Sample | Failure:
    if isinstance(result, Failure) or not suspect:
        return result
    return replace(result, extra={**result.extra, "suspect": "fusion_mismatch"})
