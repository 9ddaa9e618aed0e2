"""Forms: the graphs of a network that a device is asked about. The sandbox makes them because the file is not
trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.importing.normalise import load_network
from hw_profiles.wiring import wiring
from workers.problem.timed_form import cut_forms, timed_form


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Map `{path, folder}` to `{wirings}`: first the wiring of the form that is timed, then the wirings of other forms
    that a job may prune.

    Each form is written to `<folder>/<wiring>.onnx`.
    """
    models = [form.save() for form in cut_forms(timed_form(load_network(Path(request["path"]))))]
    wirings = [wiring(model) for model in models]
    for name, model in zip(wirings, models, strict=True):
        (Path(request["folder"]) / f"{name}.onnx").write_bytes(model)
    return {"wirings": wirings}
