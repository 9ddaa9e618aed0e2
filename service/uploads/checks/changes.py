"""Changes: check that a job's methods find something to change in a network, before the job is queued."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.errors import InvalidInput
from compress.graph.fold import fold_norms
from compress.graph.rewrites import rewritten
from compress.importing.normalise import load_network
from compress.network import Network
from compress.scheme import Scheme


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Map `{path, name, methods}`, with methods as (name, settings) pairs, to `{knobs}`, the names of the knobs.

    Raises:
        InvalidInput: the methods find no knobs; the text says why.
    """
    network = rewritten(fold_norms(load_network(Path(request["path"]))))  # the form that jobs prune and time
    scheme = Scheme.of(request["methods"])
    knobs = [knob.name for knob in scheme.knobs(network, {})]
    if not knobs:
        methods = [name for name, _ in request["methods"]]
        find = "finds" if len(methods) == 1 else "find"
        says = f"{' and '.join(methods)} {find} nothing to change in model {request['name']}: {_reason(network)}"
        raise InvalidInput("methods", methods, says)
    return {"knobs": knobs}


def _reason(network: Network) -> str:
    if any(node.op_type == "DequantizeLinear" for node in network.nodes):
        return "its layers are in int8 already"
    if network.halves:
        return "its weights are stored as float16 already"
    return "it has no layer that can be pruned or stored in fewer bits"
