"""Engine artifacts: beside the ONNX file, what the targets' engines run of each finalist, if they have own formats."""

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
    """The very files that were timed. The chosen network's is named after the job and the device, which says the
    runtime; the name of another finalist's says which one it is, too.
    """
    found: dict[Path, Path] = {}
    for device in devices:
        suffix = device.table.device.suffix
        for each in judged if suffix != ONNX else ():
            which = "" if each.trained.name == chosen.name else f"-{each.trained.name}"
            path = engine_file(context, device.target.device_id, each.trained.model)
            assert path is not None, "what was judged was timed, as the file that the engine made"
            found[folder / f"{context.plan.name}{which}-{device.target.device_name}{suffix}"] = path
    return [durable.write(place, path.read_bytes()) for place, path in found.items()]
