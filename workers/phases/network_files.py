"""Network files: the ONNX files that a job hands over, each checked in a clean process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workers.judging.on_device import OnDevice
from workers.reporting.clean_check import Checked, clean_check
from workers.running import durable
from workers.running.context import Context
from workers.running.inputs import Inputs
from workers.training.trained import Trained


def network_files(name: str, chosen: Trained, devices: Sequence[OnDevice]) -> dict[str, Trained]:
    """Return the networks to hand over by the names of their files, each network once: the job's result, then the
    networks of devices that have another one.
    """
    files = {f"{name}.onnx": chosen}
    for each in devices:
        if each.trained.name not in (trained.name for trained in files.values()):
            files[f"{name}-{each.target.device_name}.onnx"] = each.trained
    return files


def checked_file(context: Context, inputs: Inputs, trained: Trained, path: Path) -> Checked:
    """Write the file of a network and check it in a clean process.

    Raises:
        JobFailed: the file behaves differently in a clean process.
    """
    durable.write(path, trained.model)
    with context.computing():
        checked = clean_check(inputs.task, path.read_bytes(), *inputs.validation, trained.score)
    metric = context.plan.metric_row
    context.say(
        f"In a clean process without our packages, {path.name} has {metric.heading} {metric.told(checked.score)} on "
        f"{checked.count} images; its outputs differ by {checked.difference:.1e} of their scale."
    )
    return checked


def device_rows(files: Mapping[str, Trained], devices: Sequence[OnDevice]) -> list[dict[str, Any]]:
    """Return the rows of `SummarisedDevices`, with the file of each device's network."""
    names = {trained.name: file for file, trained in files.items()}
    return [
        {
            "device": each.target.device_id,
            "verdict": each.verdict,
            "network": dict(each.row),
            "file": names[each.trained.name],
        }
        for each in devices
    ]
