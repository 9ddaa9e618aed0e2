"""Engine artifacts: the finalists' files in the formats of the targets' engines, offered beside the ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hw_profiles.device import ONNX
from workers.judging.judged import Judged
from workers.profiling.timed_device import TimedDevice
from workers.running import durable
from workers.running.context import Context
from workers.running.engine_files import engine_file
from workers.training.trained import Trained


def engine_artifacts(
    context: Context, devices: Sequence[TimedDevice], judged: Sequence[Judged], chosen: Trained, folder: Path
) -> list[Path]:
    """Copy the files that were timed into a folder; return their paths.

    The chosen network's file is named after the job and the device (the device's name includes the runtime). Another
    finalist's file name also contains the finalist's name.
    """
    found: dict[Path, Path] = {}
    for device in devices:
        suffix = device.table.device.suffix
        for each in judged if suffix != ONNX else ():
            which = "" if each.trained.name == chosen.name else f"-{each.trained.name}"
            path = engine_file(context, device.target.device_id, each.trained.model)
            assert path is not None, "every judged network was timed as an engine file"
            found[folder / f"{context.plan.name}{which}-{device.target.device_name}{suffix}"] = path
    return [durable.write(place, path.read_bytes()) for place, path in found.items()]
