"""Blocks: the kernels of a network on a device's runtime. They are found in the sandbox because the file is not
trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.counting.op_templates import op_templates
from compress.importing.normalise import load_network
from hw_profiles import runtimes
from hw_profiles.errors import ExtraMissing, InvalidInput
from workers.problem.timed_form import timed_form


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Map `{path, runtime, fused}` to `{blocks: [{layers, op}]}` in the order of execution, or to `{missing: why}`.

    `fused` has the sets of node names that the device reported; without it, the engine on this machine is asked. The
    blocks belong to the network as uploaded (`workers.problem.timed_form`), which jobs call the original.
    """
    network = timed_form(load_network(Path(request["path"])))
    try:
        fused = tuple(map(frozenset, request.get("fused", ()))) or runtimes.load(request["runtime"]).fused(
            network.save()
        )
    except (ExtraMissing, InvalidInput) as error:
        return {"missing": str(error)}
    templates = op_templates(network, fused, runtimes.layout_of(request["runtime"]))
    return {"blocks": [{"layers": list(each.layers), "op": each.at().to_json()} for each in templates]}
