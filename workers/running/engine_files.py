"""Engine files: a device's runtime converts networks; a file is accepted if its outputs agree with the network's
outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.graph.onnxruntime import runtime_noise, session
from compress.importing.agreement import Agreement, judge
from hw_profiles.device import ONNX, DeviceConfig
from hw_profiles.runtimes import Arrays
from hw_profiles.timing.conversion import Conversion, each_alone
from workers.errors import MeasurementFailed
from workers.running import durable
from workers.running.context import Context
from workers.running.inputs import Inputs

SAMPLES = 8
"""Number of images on which an engine's file is compared with its network. A few are enough, because a wrong conversion
is noticed on the first image.
"""
SHORT = frozenset({"fp16", "bf16"})
"""Number types of devices that compute with 16 bits; their outputs are compared at that precision."""
_SHOWN = 3


def engine_file(context: Context, device_id: str, model: bytes) -> Path | None:
    """Return the engine's own file of a network, if this job has made one."""
    return context.file(_name(device_id, model))


def engine_files(
    context: Context, inputs: Inputs, device_id: str, models: Mapping[str, bytes], folder: Path
) -> Mapping[str, Path]:
    """Return the files to time and to give to users: the engine's own file of each ONNX file, made and checked once per
    job.

    An engine that reads ONNX gets the ONNX file itself, written into `folder`.

    Raises:
        DeviceOffline, Halted: see `Ports.converted`.
        MeasurementFailed: the runtime cannot convert a network, or the file's outputs differ from the network's.
    """
    device = context.ports.table(device_id).device
    if device.suffix == ONNX:
        return {key: durable.write(folder / f"{key}{ONNX}", model) for key, model in models.items()}
    missing = {key: model for key, model in models.items() if engine_file(context, device_id, model) is None}
    if missing:
        _convert(context, inputs, device_id, device, missing)
    return {key: path for key, model in models.items() if (path := engine_file(context, device_id, model))}


def _convert(
    context: Context, inputs: Inputs, device_id: str, device: DeviceConfig, models: Mapping[str, bytes]
) -> None:
    samples = {inputs.network.input_name: inputs.ranking(SAMPLES)[0]}
    patience_s = context.plan.effort.device_wait_s
    made = context.ports.converted(device_id, list(models.values()), samples, patience_s)
    worst = 0.0
    for (key, model), one in zip(models.items(), made, strict=True):
        with context.computing():
            worst = max(worst, _believed(device_id, device, key, model, one, samples))
        context.keep_bytes(_name(device_id, model), one.file, device.suffix)
    context.say(
        f"{context.device_name(device_id)}: {device.runtime} converted {len(models)} networks; their outputs on "
        f"{SAMPLES} images differ by at most {worst:.1e} of their scale."
    )


def _believed(device_id: str, device: DeviceConfig, key: str, model: bytes, made: Conversion, samples: Arrays) -> float:
    """Check that a file's outputs agree with the network's outputs; return the largest difference."""
    running = session(model)
    names = [output.name for output in running.get_outputs()]
    wanted = each_alone(lambda one: dict(zip(names, running.run(names, dict(one)), strict=True)), samples)
    worst = 0.0
    for name, value in wanted.items():
        if name not in made.outputs:
            raise MeasurementFailed(
                device_id, f"{device.runtime} converted {key!r} to a file without the output {name!r}"
            )
        found = _agreement(device, model, name, made.outputs[name], value, samples)
        if not found.holds:
            raise MeasurementFailed(device_id, _otherwise(device, key, name, made.outputs[name], value, found))
        worst = max(worst, found.difference)
    return worst


def _agreement(
    device: DeviceConfig,
    model: bytes,
    name: str,
    said: npt.NDArray[Any],
    wanted: npt.NDArray[Any],
    samples: Arrays,
) -> Agreement:
    reference = wanted.astype(np.float16) if device.dtype in SHORT and wanted.dtype.kind == "f" else wanted
    first = {key: value[:1] for key, value in samples.items()}
    return judge(said, reference, lambda: runtime_noise(model, first)[name])


def _otherwise(
    device: DeviceConfig, key: str, name: str, said: npt.NDArray[Any], wanted: npt.NDArray[Any], found: Agreement
) -> str:
    return (
        f"{device.runtime} converted network {key!r} to a file with other outputs: {name!r} begins with "
        f"{_first(said)} instead of {_first(wanted)}; they differ by {found.difference:.2g} of their scale, "
        f"but at most {found.tolerance:.2g} is allowed"
    )


def _first(values: npt.NDArray[Any]) -> str:
    return ", ".join(f"{value:.6g}" for value in values.ravel()[:_SHOWN].tolist()) or "nothing"


def _name(device_id: str, model: bytes) -> str:
    return f"engine-{device_id}-{hashlib.sha256(model).hexdigest()[:32]}"
