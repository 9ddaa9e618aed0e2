"""Check an uploaded network: read it, verify it against onnxruntime, and find what can be pruned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compress.counting.cost import cost
from compress.data.preprocessing import Preprocessing
from compress.errors import InvalidInput, Mistake, lacks_memory
from compress.graph.groups import Group, groups
from compress.graph.outputs import check_output, output_shapes, scored_at_upload
from compress.importing.batch_statistics import check_independent
from compress.importing.input_layout import image_shape, input_layout
from compress.importing.normalise import load_network
from compress.importing.verify import verify
from compress.network import Network
from compress.ops import find_row
from compress.tasks import DEFAULT, names

SAMPLES = 3  # enough for `verify` to find the batch axis


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Map `{path, preprocessing, output}` to the description of a network in the answer to an upload.

    Raises:
        InvalidInput: the file, its preprocessing or the name of its scored output is invalid.
        Mistake: Netlathe's code failed on the file, and the file is not at fault.
    """
    try:
        return _checked(request)
    except (InvalidInput, Mistake, OSError):
        raise
    except Exception as error:
        if lacks_memory(error):
            raise
        raise Mistake(f"{type(error).__name__}: {error}") from error


def _checked(request: Mapping[str, Any]) -> dict[str, Any]:
    path = Path(request["path"])
    network = load_network(path)
    preprocessing = Preprocessing.from_json(request["preprocessing"])
    _check_input(network, preprocessing)
    scored = _scored(network, request["output"])
    samples = np.random.default_rng(0).standard_normal((SAMPLES, *network.input_shape), np.float32)
    verify(network, samples)
    check_independent(network, samples)
    found, counted = groups(network), cost(network)
    return {
        "parameters": counted.parameters,
        "macs": counted.macs,
        "size_bytes": min(counted.size_bytes, path.stat().st_size),  # the same rule as `compress.counting.cost.sent`
        "input_shape": list(network.input_shape),
        "inputs": [_input(network, name) for name in network.inputs],
        "outputs": [_output(name, shape, scored) for name, shape in output_shapes(network).items()],
        "groups": [describe(group) for group in found],
        "warnings": [*network.warnings, *_warnings(network, found, scored)],
    }


def describe(group: Group) -> dict[str, Any]:
    """Describe a channel group as in the REST contract."""
    return {
        "name": group.name,
        "width": group.width,
        "prunable": group.prunable,
        "reason": group.reason or None,
        "layers": list(group.layers),
    }


def _input(network: Network, name: str) -> dict[str, Any]:
    kind = network.inputs[name]
    return {"name": name, "shape": list(kind.shape[1:]), "dtype": kind.dtype, "layout": input_layout(network)}


def _output(name: str, shape: tuple[int, ...], scored: str | None) -> dict[str, Any]:
    role = None if scored is None else "scored" if name == scored else "kept"
    return {"name": name, "shape": list(shape), "role": role}


def _scored(network: Network, asked: str | None) -> str | None:
    shapes, name = output_shapes(network), asked or network.scored
    if name is None:
        return scored_at_upload(shapes)
    if name not in shapes or names() == (DEFAULT,):  # another task may score an output of any form
        check_output(shapes, name)
    return name


def _check_input(network: Network, preprocessing: Preprocessing) -> None:
    shape = image_shape(network)
    if len(shape) != 3:
        raise InvalidInput(
            "inputs",
            list(shape),
            f"the input must be images (batch, channels, height, width), not (batch, {', '.join(map(str, shape))})",
        )
    preprocessing.check_channels(shape[0])
    if preprocessing.size not in (None, shape[1:]):
        raise InvalidInput("preprocessing.size", preprocessing.size, f"the network takes images of {list(shape[1:])}")


def _warnings(network: Network, found: tuple[Group, ...], scored: str | None) -> list[str]:
    warnings = []
    unknown = sorted({node.op_type for node in network.nodes if find_row(node) is None})
    if unknown:
        warnings.append(f"no rule for {', '.join(unknown)}: the channels around these operators are not pruned")
    if not any(group.prunable for group in found):
        warnings.append("no channels of this network can be pruned")
    if scored is None:
        several = sum(len(shape) == 1 for shape in output_shapes(network).values()) > 1
        warnings.append(
            "the classes of a job's data will decide which output is scored, unless `output` names it"
            if several
            else "no output has one score per class, so its accuracy cannot be computed"
        )
    return warnings
