"""Normalise: any ONNX file of a classifier becomes one plain, typed graph with a symbolic batch.

Functions are inlined, constants and shape chains folded, a baked batch of 1 made symbolic, initializers copied
so that each has one use (a weight used twice in the same role stays one constant: tied), metadata stripped
(torch writes source paths and stack traces there). Names of inputs, outputs and untouched tensors stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator

from compress.errors import InvalidInput
from compress.graph.names import Names
from compress.importing.determinism import RANDOM_OPS, check_deterministic
from compress.network import SCORED, Array, Network, Node, TensorType, _frozen, node_proto, parse, read_node

OPSET_MIN, OPSET_CONVERTED = 13, 17
IR_MIN = 4
# Small integer constants steer shapes (Reshape, Slice, Pad): shape inference must see their values.
SHAPE_CONSTANT_MAX = 1024
# Folding these would turn a user's quantised weights back into floats.
QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
# One drawn sample must not become a constant: a random node stays and is refused by its name.
NEVER_FOLDED = QUANTISERS | RANDOM_OPS | {"Dropout"}
TIED_ROLES = frozenset({("Conv", 1), ("Gemm", 1), ("MatMul", 1), ("MatMul", 0), ("ConvTranspose", 1)})


Shape = tuple[int | None, ...]


def load(source: bytes | Path | str, *, as_exported: bool = False) -> Network:
    """Read, normalise and type an ONNX file. See `Network.load`.

    Args:
        as_exported: leave batch norms in training mode, if the file has them so.
    """
    from compress.importing.faults import without_faults

    given = parse(source)
    model = _prepared(given)
    warnings: list[str] = []
    constants, nodes = _constants_and_nodes(model.graph, warnings)
    nodes, constants = _fold_constants(nodes, constants, dict(_opsets(model)))
    nodes = [_without_empty(node, constants) for node in nodes]
    inputs = _inputs(model.graph, constants, warnings)
    outputs = {value.name: TensorType((), "float32") for value in model.graph.output}
    network = Network(tuple(nodes), _frozen(constants), inputs, outputs, dict(_opsets(model)), _ir_version(model))
    _check_finite(network)
    network = _unbake_batch(network, warnings)
    network = _fold_shape_chains(network)
    network = _private_constants(network)
    network = replace(network, nodes=tuple(_alive(network.nodes, network.outputs)))
    check_deterministic(network)
    if not as_exported:
        network = _in_inference(network, warnings)
    network = network.edited(network.nodes, network.constants)
    _check_outputs(network)
    return without_faults(replace(network, warnings=tuple(warnings), scored=_scored(given)))


def _in_inference(network: Network, warnings: list[str]) -> Network:
    from compress.importing.batch_statistics import in_inference, in_training

    switched = in_inference(network)
    count = len(in_training(network)) - len(in_training(switched))
    if count:
        warnings.append(f"{count} batch norms were exported in training mode and are in inference mode now")
    return switched


def _scored(model: onnx.ModelProto) -> str | None:
    """The output that a file of ours says is scored."""
    said = next((each.value for each in model.metadata_props if each.key == SCORED), None)
    return said if said in {output.name for output in model.graph.output} else None


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    if model.functions:
        model = inline_local_functions(model)
    version = dict(_opsets(model)).get("", 1)
    try:
        if version < OPSET_MIN:
            model = onnx.version_converter.convert_version(model, OPSET_CONVERTED)
        onnx.checker.check_model(model)
    except Exception as error:  # the checker and the converter raise many kinds
        says = f"onnx refuses the file (its opset is {version}): {str(error)[:300]}"
        raise InvalidInput(says, field="file") from error
    return model


def _opsets(model: onnx.ModelProto) -> Iterable[tuple[str, int]]:
    return (("" if item.domain == "ai.onnx" else item.domain, item.version) for item in model.opset_import)


def _ir_version(model: onnx.ModelProto) -> int:
    """The file's own, or the first that goes with its opsets: before 4, weights had to be inputs too."""
    return max(model.ir_version, helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True), IR_MIN)


def _without_empty(node: Node, constants: Mapping[str, Array]) -> Node:
    """Opset 11 had no way to leave out `roi` and `scales` of a Resize: torch gave empty tensors."""
    if node.op_type != "Resize":
        return node
    left_out = {name for name in node.inputs[1:] if name in constants and constants[name].size == 0}
    return replace(node, inputs=tuple("" if name in left_out else name for name in node.inputs))


def _constants_and_nodes(graph: onnx.GraphProto, warnings: list[str]) -> tuple[dict[str, Array], list[Node]]:
    if graph.sparse_initializer:
        raise InvalidInput("sparse initializers are not supported; save the weights dense", field="file")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes, taken, renamed = [], set[str](), dict[str, str]()
    given = {proto.name for proto in graph.node}
    for position, proto in enumerate(graph.node):
        if any(a.type in (a.GRAPH, a.GRAPHS) for a in proto.attribute):
            raise InvalidInput(
                f"control flow ({proto.op_type}) is not supported: export with fixed branches",
                field="file",
                value=proto.name,
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
        warnings.append(f"{len(renamed)} nodes had the name of another and have a new one: a {old!r} is {new!r} now")
    return constants, nodes


def _inputs(graph: onnx.GraphProto, constants: Mapping[str, Array], warnings: list[str]) -> dict[str, TensorType]:
    real = [value for value in graph.input if value.name not in constants]
    if len(real) != 1:
        names = [value.name for value in real]
        raise InvalidInput(f"expected one input, found {len(real)}: {names}", field="inputs", value=names)
    kind = real[0].type.tensor_type
    dtype = str(helper.tensor_dtype_to_np_dtype(kind.elem_type)) if kind.elem_type else "undefined"
    if dtype != "float32":
        raise InvalidInput(f"the input must be float32, not {dtype}", field="inputs", value=dtype)
    sizes = [dim.dim_value for dim in kind.shape.dim]
    if len(sizes) < 2 or any(size <= 0 for size in sizes[1:]):
        shown = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim]
        raise InvalidInput(
            f"the input's shape must be (batch, fixed sizes above 0), not {shown}: export with fixed height and width",
            field="inputs",
            value=shown,
        )
    if sizes[0] > 1:
        warnings.append(f"the input's batch was fixed at {sizes[0]}; it is symbolic now")
    return {real[0].name: TensorType((1, *sizes[1:]), dtype, batch_axis=0)}


def _fold_constants(
    nodes: list[Node], constants: dict[str, Array], opset: Mapping[str, int]
) -> tuple[list[Node], dict[str, Array]]:
    rest = []
    for node in nodes:
        if node.op_type in NEVER_FOLDED or not all(name in constants for name in node.inputs if name):
            rest.append(node)
            continue
        values = _evaluate(node, constants, opset)
        if values is None:
            rest.append(node)
        else:
            constants |= values
    return rest, constants


def _evaluate(node: Node, values: Mapping[str, Any], opset: Mapping[str, int]) -> dict[str, Array] | None:
    """The outputs of one node for known inputs; None where onnx's reference cannot run it."""
    feeds = {name: np.asarray(values[name]) for name in node.inputs if name}
    graph = helper.make_graph(
        [node_proto(node)],
        "one",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feeds.items()],
        [helper.make_empty_tensor_value_info(name) for name in node.outputs if name],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in opset.items()])
    try:
        results = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # whatever a third-party op raises: the node is then simply kept
        return None
    return {name: np.asarray(value) for name, value in zip(filter(None, node.outputs), results, strict=True)}


def _check_finite(network: Network) -> None:
    """Weights that are not numbers would make every output one that is none. A bound may well be infinite."""
    for name, value in network.constants.items():
        if value.dtype.kind == "f":
            bad = ~np.isfinite(value) if value.ndim > 1 else np.isnan(value)
            if bad.any():
                raise InvalidInput(
                    f"{int(bad.sum())} of the {value.size} values of {name!r} are NaN or infinite",
                    field="file",
                    value=name[:80],
                )


def _unbake_batch(network: Network, warnings: list[str]) -> Network:
    """A 1 at the head of a Reshape's constant shape is the exporter's batch of 1: make it follow the batch."""
    baked = {node.name for node in network.nodes if _starts_with_one(node, network)}
    if not baked:
        return network
    seen, names = _inferred(network, 1), Names(network)
    constants = dict(network.constants)
    nodes = []
    for node in network.nodes:
        # Integers are shapes and positions, not samples: theirs is a 1 that is meant.
        if node.name in baked and seen.get(node.input(0), ((), "float32"))[1].startswith("float"):
            name, shape = names.new(f"{node.name}_shape"), constants[node.input(1)]
            constants[name] = np.concatenate([[0 if -1 in shape else -1], shape[1:]]).astype(np.int64)
            node = replace(node, inputs=(node.input(0), name))
            warnings.append(f"Reshape {node.name!r} had a batch of 1 baked in; it follows the batch now")
        nodes.append(node)
    return replace(network, nodes=tuple(nodes), constants=_frozen(constants))


def _starts_with_one(node: Node, network: Network) -> bool:
    shape = network.constants.get(node.input(1)) if node.op_type == "Reshape" else None
    return bool(shape is not None and shape.ndim == 1 and shape.size and shape[0] == 1 and not node.get("allowzero", 0))


def _fold_shape_chains(network: Network) -> Network:
    """Values that follow from shapes alone become constants; every Reshape gets a constant shape, -1 for the batch."""
    (at_three, shapes_three), (at_five, shapes_five) = (_shape_values(network, batch) for batch in (3, 5))
    constants, names = dict(network.constants), Names(network)
    nodes = []
    for node in network.nodes:
        known = [name for name in node.outputs if name in at_three]
        same = [name for name in known if np.array_equal(at_three[name], at_five[name])]
        constants |= {name: at_three[name] for name in same}
        if len(same) == len(node.outputs):
            continue
        if node.op_type == "Reshape" and node.outputs[0] in shapes_three:
            symbolic = _batch_symbolic(shapes_three[node.outputs[0]][0], shapes_five[node.outputs[0]][0])
            if symbolic is not None and not _reshapes_to(node, symbolic, constants):
                name = names.new(f"{node.name}_shape")
                constants[name] = symbolic
                node = replace(node, inputs=(node.input(0), name), attributes={})
        nodes.append(node)
    return replace(network, nodes=tuple(_alive(nodes, network.outputs)), constants=_frozen(constants))


def _reshapes_to(node: Node, shape: Array, constants: Mapping[str, Array]) -> bool:
    """Whether the node says so already: then its shape keeps its name, however often a file is loaded and saved."""
    return not node.attributes and np.array_equal(constants.get(node.input(1), np.empty(0)), shape)


def _batch_symbolic(at_three: Shape, at_five: Shape) -> Array | None:
    """The target of a Reshape that follows the batch; None where more than one axis does, or a size is unknown."""
    if None in at_three or sum(a != b for a, b in zip(at_three, at_five, strict=True)) > 1:
        return None
    return np.array([-1 if a != b else a for a, b in zip(at_three, at_five, strict=True)], dtype=np.int64)


def _shape_values(network: Network, batch: int) -> tuple[dict[str, Array], dict[str, tuple[Shape, str]]]:
    """Every tensor whose value follows from shapes alone at this batch, and the shapes inferred with them known."""
    values: dict[str, Array] = {}
    while True:
        known = {**network.constants, **values}
        rest = tuple(node for node in network.nodes if not known.keys() >= set(node.outputs))
        shapes = _inferred(replace(network, nodes=rest, constants=known), batch)
        fresh = _evaluated_from_shapes(rest, known, shapes, network.opset)
        if not fresh:
            return values, shapes
        values |= fresh


def _evaluated_from_shapes(
    nodes: Iterable[Node], known: Mapping[str, Array], shapes: Mapping[str, tuple[Shape, str]], opset: Mapping[str, int]
) -> dict[str, Array]:
    values: dict[str, Array] = {}
    for node in nodes:
        if node.op_type == "Shape":
            shape = shapes[node.input(0)][0] if node.input(0) in shapes else (None,)
            if None not in shape:
                start, end = node.get("start", 0), node.get("end", len(shape))
                values[node.outputs[0]] = np.array(shape[start:end], dtype=np.int64)
        elif node.op_type in NEVER_FOLDED or not node.inputs:
            continue
        elif all(name in known or name in values for name in node.inputs if name):
            values |= _evaluate(node, {**known, **values}, opset) or {}
    return values


def _private_constants(network: Network) -> Network:
    """One copy of a constant per use, except a weight used again in the same role: that is tied on purpose."""
    constants = dict(network.constants)
    seen, names = dict[str, set[tuple[str, int]]](), Names(network)
    nodes = []
    for node in network.nodes:
        inputs = list(node.inputs)
        for position, name in enumerate(inputs):
            if name not in network.constants:
                continue
            role = (node.op_type, position)
            earlier = seen.setdefault(name, set())
            if earlier and not (role in TIED_ROLES and earlier == {role}):
                inputs[position] = names.new(f"{name}/{node.name}")
                constants[inputs[position]] = network.constants[name].copy()
            else:
                earlier.add(role)
        nodes.append(replace(node, inputs=tuple(inputs)))
    return replace(network, nodes=tuple(nodes), constants=_frozen(constants))


def _alive(nodes: Iterable[Node], outputs: Iterable[str]) -> list[Node]:
    wanted, kept = set(outputs), []
    for node in reversed(list(nodes)):
        if wanted & set(node.outputs):
            wanted |= set(node.inputs)
            kept.append(node)
    return kept[::-1]


def sort_nodes(nodes: tuple[Node, ...], known: set[str]) -> tuple[Node, ...]:
    """Execution order, stable where it is free.

    Raises:
        ValueError: a cycle, or an input that nobody makes.
    """
    made, ordered, waiting = set(known) | {""}, list[Node](), list(nodes)
    while waiting:
        ready = [node for node in waiting if made.issuperset(node.inputs)]
        if not ready:
            raise ValueError(f"no order for nodes {[node.name for node in waiting][:5]}: a cycle or a missing tensor")
        first = ready[0]
        waiting.remove(first)
        ordered.append(first)
        made.update(first.outputs)
        # Most graphs come sorted: go on from here in one sweep rather than from the front each time.
        rest = []
        for node in waiting:
            if made.issuperset(node.inputs):
                ordered.append(node)
                made.update(node.outputs)
            else:
                rest.append(node)
        waiting = rest
    return tuple(ordered)


def infer_types(network: Network) -> Network:
    """The network with the type of every activation, by strict shape inference at batches 1 and 3.

    Raises:
        InvalidInput: shape inference refuses the graph.
    """
    one, three = _inferred(network, 1), _inferred(network, 3)
    missing = [
        name
        for node in network.nodes
        for name in node.outputs
        if name and (name not in one or None in one[name][0] or name not in three or None in three[name][0])
    ]
    if missing:
        one |= _run_shapes(network, missing, 1)
        three |= _run_shapes(network, missing, 3)
    types = {name: _type(one[name], three[name]) for name in one if name in three}
    outputs = {name: types[name] for name in network.outputs}
    return replace(network, types=types, outputs=outputs)


def _type(one: tuple[Shape, str], three: tuple[Shape, str]) -> TensorType:
    axes = [axis for axis, (a, b) in enumerate(zip(one[0], three[0], strict=True)) if a != b]
    shape = tuple(-1 if size is None else size for size in one[0])
    return TensorType(shape, one[1], axes[0] if axes else None)


def _inferred(network: Network, batch: int) -> dict[str, tuple[Shape, str]]:
    """Shapes and dtypes of all activations at this batch, as far as onnx infers them."""
    try:
        return _shapes(network, batch, strict=True)
    except Exception as error:  # onnx raises InferenceError, and others for broken attributes
        mixing = _mixing(network) if batch > 1 else None
        if mixing is not None:
            raise InvalidInput(
                f"the graph mixes the batch with other axes at node {mixing.name!r} ({mixing.op_type}), so that it "
                "takes one sample only: export with Flatten(1), or a Reshape that keeps the batch first",
                field="file",
                value=mixing.name,
            ) from error
        raise InvalidInput(
            f"shapes do not fit at batch {batch}: {str(error)[:300]}", field="file", value=batch
        ) from error


def _mixing(network: Network) -> Node | None:
    """The first node that brings the batch into an axis with other things in it; None if there is none."""
    one, three = _shapes(network, 1, strict=False), _shapes(network, 3, strict=False)
    for node in network.nodes:
        x, y = node.input(0), node.outputs[0]
        if node.op_type in ("Flatten", "Reshape") and {x, y} <= one.keys() & three.keys():
            before, after = (_grown(one[name][0], three[name][0]) for name in (x, y))
            if before == 1 and after is not None and after > 1:
                return node
    return None


def _grown(at_one: Shape, at_three: Shape) -> int | None:
    """The size at batch 1 of the axis that follows the batch."""
    return next((a for a, b in zip(at_one, at_three, strict=True) if a != b), None)


def _shapes(network: Network, batch: int, *, strict: bool) -> dict[str, tuple[Shape, str]]:
    inferred = onnx.shape_inference.infer_shapes(
        _skeleton(network, batch), check_type=strict, strict_mode=strict, data_prop=True
    )
    found: dict[str, tuple[Shape, str]] = {}
    graph = inferred.graph
    for value in (*graph.value_info, *graph.output, *graph.input):
        kind = value.type.tensor_type
        if value.name in network.constants or not kind.elem_type or not kind.HasField("shape"):
            continue
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
        found[value.name] = (shape, str(helper.tensor_dtype_to_np_dtype(kind.elem_type)))
    return found


def _skeleton(network: Network, batch: int) -> onnx.ModelProto:
    """The graph at a fixed batch, its large constants as typed inputs, so that inference moves no weights."""
    small = {n: v for n, v in network.constants.items() if v.dtype.kind in "iub" and v.size <= SHAPE_CONSTANT_MAX}
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype)), (batch, *kind.shape[1:])
        )
        for name, kind in network.inputs.items()
    ] + [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in network.constants.items()
        if name not in small
    ]
    graph = helper.make_graph(
        [node_proto(node) for node in network.nodes],
        "skeleton",
        inputs,
        [helper.make_empty_tensor_value_info(name) for name in network.outputs],
        [numpy_helper.from_array(np.asarray(value, order="C"), name) for name, value in small.items()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in network.opset.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=network.ir_version)


def _run_shapes(network: Network, names: list[str], batch: int) -> dict[str, tuple[Shape, str]]:
    """Shapes that inference cannot know (ops of other domains), read off a real run."""
    from compress.importing.verify import run_onnxruntime

    values = run_onnxruntime(network, np.zeros((batch, *network.input_shape), np.float32), names)
    return {name: (tuple(value.shape), str(value.dtype)) for name, value in values.items()}


def _check_outputs(network: Network) -> None:
    kind = network.outputs[network.output_name]
    if kind.batch_axis != 0:
        raise InvalidInput(
            f"output {network.output_name!r} of shape {kind.shape} does not follow the batch (tried 1 and 3)",
            field="outputs",
            value=list(kind.shape),
        )
