"""Engine files: a device's runtime converts networks; a file is accepted if its outputs agree with the network's
outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.graph.onnxruntime import runtime_noise, session
from compress.importing.agreement import Agreement, judge
from hw_profiles.device import ONNX, DeviceConfig
from hw_profiles.runtimes import Arrays
from hw_profiles.timing.conversion import Conversion, each_alone
from hw_profiles.timing.protocol import Failure
from workers.running import durable
from workers.running.context import Context
from workers.running.inputs import Inputs

SAMPLES = 8
"""Number of images on which an engine's file is compared with its network. A few are enough, because a wrong conversion
is noticed on the first image.
"""
SHORT = frozenset({"fp16", "bf16"})
"""Number types of devices that compute with 16 bits; their outputs are compared at that precision."""
REFERENCE = "onnxruntime"
"""Runtime whose outputs are the reference of every comparison (`compress.graph.onnxruntime`)."""
_DID = {True: "ran", False: "converted"}
_SHOWN = 3


def engine_file(context: Context, device_id: str, model: bytes) -> Path | None:
    """Return the engine's own file of a network, if this job has made one."""
    return context.file(_name(device_id, model))


def engine_files(
    context: Context,
    inputs: Inputs,
    device_id: str,
    models: Mapping[str, bytes],
    folder: Path,
    checked: Set[str] = frozenset(),
) -> Mapping[str, Path | Failure]:
    """Return the files to time and to give to users: the engine's own file of each ONNX file, made and checked once per
    job. If the runtime cannot convert a network, or the file's outputs differ from the network's, there is a Failure in
    place of the file.

    An engine that reads ONNX gets the ONNX file itself, written into `folder`; only the outputs of the networks in
    `checked` are compared, because the engine's file is not in doubt and each comparison takes the device's time.

    Raises:
        DeviceOffline, MeasurementFailed, Halted: see `Ports.converted`.
    """
    device = context.ports.table(device_id).device
    wanted = {key: model for key, model in models.items() if _in_doubt(device, key in checked)}
    missing = {key: model for key, model in wanted.items() if engine_file(context, device_id, model) is None}
    refused = _convert(context, inputs, device_id, device, missing) if missing else {}
    return {
        key: refused.get(key) or engine_file(context, device_id, model) or durable.write(folder / f"{key}{ONNX}", model)
        for key, model in models.items()
    }


def _in_doubt(device: DeviceConfig, checked: bool) -> bool:
    """True if the engine's outputs must be compared with the network's outputs.

    Two engines that read ONNX need no comparison: the reference is computed by onnxruntime itself, and every network
    was checked with it when it was made; and a simulated device has no engine that computes anything, only figures.
    """
    if device.suffix != ONNX:
        return True
    return checked and device.runtime != REFERENCE and device.kind != "simulated"


def _convert(
    context: Context, inputs: Inputs, device_id: str, device: DeviceConfig, models: Mapping[str, bytes]
) -> Mapping[str, Failure]:
    """Convert and check the networks, keep the files of those that agree, and return the failures of the others."""
    samples = {inputs.network.input_name: inputs.ranking(SAMPLES)[0]}
    patience_s = context.plan.effort.device_wait_s
    made = context.ports.converted(device_id, list(models.values()), samples, patience_s)
    refused, worst = dict[str, Failure](), 0.0
    for (key, model), one in zip(models.items(), made, strict=True):
        if isinstance(one, Failure):
            refused[key] = replace(one, key=key)
            continue
        with context.computing():
            judged = _believed(device, key, model, one, samples)
        if isinstance(judged, Failure):
            refused[key] = judged
            continue
        worst = max(worst, judged)
        context.keep_bytes(_name(device_id, model), one.file, device.suffix)
    if len(refused) < len(models):
        context.say(
            f"{context.device_name(device_id)}: {device.runtime} {_DID[device.suffix == ONNX]} "
            f"{len(models) - len(refused)} networks; their outputs on {SAMPLES} images differ by at most "
            f"{worst:.1e} of their scale."
        )
    return refused


def _believed(device: DeviceConfig, key: str, model: bytes, made: Conversion, samples: Arrays) -> float | Failure:
    """Check that a file's outputs agree with the network's outputs; return the largest difference."""
    running = session(model)
    names = [output.name for output in running.get_outputs()]
    wanted = each_alone(lambda one: dict(zip(names, running.run(names, dict(one)), strict=True)), samples)
    worst = 0.0
    for name, value in wanted.items():
        if name not in made.outputs:
            return Failure(key, f"{device.runtime} {_DID[device.suffix == ONNX]} it without the output {name!r}")
        found = _agreement(device, model, name, made.outputs[name], value, samples)
        if not found.holds:
            return Failure(key, _otherwise(device, key, name, made.outputs[name], value, found))
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
        f"{device.runtime} {_DID[device.suffix == ONNX]} network {key!r} with other outputs: {name!r} begins with "
        f"{_first(said)} instead of {_first(wanted)}; they differ by {found.difference:.2g} of their scale, "
        f"but at most {found.tolerance:.2g} is allowed"
    )


def _first(values: npt.NDArray[Any]) -> str:
    return ", ".join(f"{value:.6g}" for value in values.ravel()[:_SHOWN].tolist()) or "nothing"


def _name(device_id: str, model: bytes) -> str:
    return f"engine-{device_id}-{hashlib.sha256(model).hexdigest()[:32]}"
