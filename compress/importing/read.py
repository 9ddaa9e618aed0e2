"""Read an ONNX file into nodes and constants, or raise an error that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.inliner import inline_local_functions

from compress.errors import InvalidInput
from compress.network import SCORED, Array, Network, Node, TensorType, read_node

OPSET_MIN, OPSET_CONVERTED = 13, 17
IR_MIN = 4


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    if model.functions:
        model = inline_local_functions(model)
    version = dict(opsets(model)).get("", 1)
    try:
        if version < OPSET_MIN:
            model = onnx.version_converter.convert_version(model, OPSET_CONVERTED)
        onnx.checker.check_model(model)
    except Exception as error:  # the checker and the converter raise many types
        says = f"onnx refuses the file (its opset is {version}): {str(error)[:300]}"
        raise InvalidInput("file", None, says) from error
    return model


def opsets(model: onnx.ModelProto) -> Iterable[tuple[str, int]]:
    return (("" if item.domain == "ai.onnx" else item.domain, item.version) for item in model.opset_import)


def ir_version(model: onnx.ModelProto) -> int:
    """Return the file's IR version, raised to what its opsets need and to 4. Before 4, weights had to be inputs too."""
    return max(model.ir_version, helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True), IR_MIN)


def without_empty(node: Node, constants: Mapping[str, Array]) -> Node:
    """Omit empty inputs of a Resize: opset 11 could not omit `roi` and `scales`, so torch wrote empty tensors."""
    if node.op_type != "Resize":
        return node
    left_out = {name for name in node.inputs[1:] if name in constants and constants[name].size == 0}
    return replace(node, inputs=tuple("" if name in left_out else name for name in node.inputs))


def constants_and_nodes(graph: onnx.GraphProto, warnings: list[str]) -> tuple[dict[str, Array], list[Node]]:
    if graph.sparse_initializer:
        raise InvalidInput("file", None, "sparse initializers are not supported; save dense weights")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes, taken, renamed = [], set[str](), dict[str, str]()
    given = {proto.name for proto in graph.node}
    for position, proto in enumerate(graph.node):
        if any(a.type in (a.GRAPH, a.GRAPHS) for a in proto.attribute):
            raise InvalidInput(
                "file", proto.name, f"control flow ({proto.op_type}) is not supported: export with fixed branches"
            )
        name = proto.name or f"{proto.op_type}_{position}"
        while name in taken or (name != proto.name and name in given):
            name = f"{name}_{position}"
        if proto.name and name != proto.name:
            renamed[name] = proto.name
        taken.add(name)
        nodes.append(read_node(proto, name))
    if renamed:
        new, old = next(iter(renamed.items()))
        warnings.append(
            f"{len(renamed)} nodes had the same name as another node and were renamed, e.g. from {old!r} to {new!r}"
        )
    return constants, nodes


def read_inputs(graph: onnx.GraphProto, constants: Mapping[str, Array], warnings: list[str]) -> dict[str, TensorType]:
    real = [value for value in graph.input if value.name not in constants]
    if len(real) != 1:
        names = [value.name for value in real]
        raise InvalidInput("inputs", names, f"expected one input, found {len(real)}: {names}")
    kind = real[0].type.tensor_type
    dtype = str(helper.tensor_dtype_to_np_dtype(kind.elem_type)) if kind.elem_type else "undefined"
    if dtype != "float32":
        raise InvalidInput("inputs", dtype, f"the input must be float32, not {dtype}")
    sizes = [dim.dim_value for dim in kind.shape.dim]
    if len(sizes) < 2 or any(size <= 0 for size in sizes[1:]):
        shown = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim]
        raise InvalidInput(
            "inputs",
            shown,
            f"the input's shape must be (batch, fixed sizes above 0), not {shown}: export with fixed height and width",
        )
    if sizes[0] > 1:
        warnings.append(f"the input's batch was fixed at {sizes[0]} and has been made symbolic")
    return {real[0].name: TensorType((1, *sizes[1:]), dtype, batch_axis=0)}


def scored_name(model: onnx.ModelProto) -> str | None:
    """Return the scored output's name from the metadata, as `Network.save` writes it; None if no output has it."""
    said = next((each.value for each in model.metadata_props if each.key == SCORED), None)
    return said if said in {output.name for output in model.graph.output} else None


def check_finite(network: Network) -> None:
    """Refuse NaN or infinite weights, which would make every output NaN. Vectors, e.g. bounds, may be infinite."""
    for name, value in network.constants.items():
        if value.dtype.kind == "f":
            bad = ~np.isfinite(value) if value.ndim > 1 else np.isnan(value)
            if bad.any():
                raise InvalidInput(
                    "file", name[:80], f"{int(bad.sum())} of the {value.size} values of {name!r} are NaN or infinite"
                )


def check_outputs(network: Network) -> None:
    kind = network.outputs[network.output_name]
    if kind.batch_axis != 0:
        raise InvalidInput(
            "outputs",
            list(kind.shape),
            f"output {network.output_name!r} of shape {kind.shape} does not follow the batch (tried 1 and 3)",
        )
