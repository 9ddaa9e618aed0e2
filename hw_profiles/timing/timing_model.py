"""The model that times one op in context: real producers, parallel copies of the block, cheap joins.

A block alone does not behave as it does in a network: in a network, its input arrives in the layout that its producer
chose. Besides, the call itself costs more than the block. So each of SLOTS slots has its own producers for every
activation, and each of the first `copies` slots has a copy of the block with its own weights:

    feed -> producer -> tap                         in every slot
                     -> block -> join               in the first `copies` slots
            stand-in -> tap                         in every slot: a tensor of the output's shape and layout
                     -> join                        in the slots without a block

Two models of the same op differ only in the number of blocks, so (T[4] - T[1]) / 3 is the latency of the block,
including the layout changes that it causes: calls, producers, taps, joins and outputs cancel. The tap keeps the runtime
from removing a producer that no block reads, and from fusing the block into its producer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.errors import InvalidInput
from hw_profiles.ops import FLOATS, QUANTISED, Op, TensorSpec
from hw_profiles.runtimes.onnxruntime.layouts import leaves_blocked
from hw_profiles.timing.random_constants import ACTIVATION_SCALE, random_constants

SLOTS = 4
# Prefix of the names of the blocks' nodes: `block2/0` is node 0 of the copy in slot 2.
BLOCK_PREFIX = "block"
# The metadata key that marks a timing model; its value is the key of the op.
OP_METADATA = "netlathe.op"

# Number of channels of the feed that conv producers read: small, so that the feed costs little, and a multiple of 4,
# which suits every layout.
FEED_CHANNELS = 4
# Taps and joins quantise with different scales; otherwise the runtime would merge the two.
TAP_SCALE = 2 * ACTIVATION_SCALE


def timing_model(op: Op, copies: int, slots: int = SLOTS) -> onnx.ModelProto:
    """Return the model with `copies` blocks in `slots` slots. Raises InvalidInput if the op cannot run alone: no
    activation enters it, or the shapes of its outputs do not follow from the shapes of its inputs.
    """
    if not 1 <= copies <= slots:
        raise InvalidInput("copies", copies, f"must be from 1 to the {slots} slots")
    if not op.inputs:
        raise InvalidInput("op", op.key, "no activation enters this op")
    return _Builder(op, copies, slots).build()


class _Builder:
    """Collects nodes, initializers, inputs and outputs of one timing model."""

    def __init__(self, op: Op, copies: int, slots: int) -> None:
        self._op, self._copies, self._slots = op, copies, slots
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: dict[str, TensorSpec] = {}
        self._outputs: list[tuple[str, TensorSpec]] = []
        self._rng = np.random.default_rng(int(op.key[:16], 16))

    def build(self) -> onnx.ModelProto:
        made = output_specs(self._op)
        blocked = leaves_blocked(self._op)
        for slot in range(self._slots):
            entering = [
                self._producer(f"x{index}_{slot}", spec, producer)
                for index, (spec, producer) in enumerate(zip(self._op.inputs, self._op.producers, strict=True))
            ]
            stand_ins = [
                self._producer(f"s{index}_{slot}", spec, "blocked" if blocked else "plain")
                for index, spec in enumerate(made)
            ]
            results = self._block(slot, entering) if slot < self._copies else stand_ins
            for index, (name, spec) in enumerate(zip(results, made, strict=True)):
                self._join(f"join{index}_{slot}", name, spec)
        return self._model()

    def _model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes,
            "timing",
            [_value_info(name, spec) for name, spec in self._inputs.items()],
            [_value_info(name, spec) for name, spec in self._outputs],
            self._initializers,
        )
        imports = _opset_imports(self._op)
        model = helper.make_model(
            graph,
            producer_name="netlathe",
            opset_imports=imports,
            ir_version=helper.find_min_ir_version_for(imports, ignore_unknown=True),
        )
        helper.set_model_props(model, {OP_METADATA: self._op.key})
        return model

    # --- producers -----------------------------------------------------------------------------------------

    def _producer(self, name: str, spec: TensorSpec, producer: str) -> str:
        """Make a tensor of `spec` in the layout that `producer` leaves it in; a tap keeps it from being removed."""
        if spec.dtype not in (*FLOATS, *QUANTISED) or producer == "input":
            self._inputs[name] = spec
            return name
        if producer == "blocked" and len(spec.shape) == 4 and spec.dtype in QUANTISED:
            self._pooled(name, spec)
        elif producer == "blocked" and len(spec.shape) == 4:
            self._conv(name, spec)
        elif spec.dtype in QUANTISED:
            entering = self._input(f"{name}_in", TensorSpec(spec.shape))
            self._quantise(entering, name, spec.dtype, ACTIVATION_SCALE)
        else:
            self._node("Neg", [self._input(f"{name}_in", spec)], name)
        self._tap(f"tap_{name}", name, spec)
        return name

    def _pooled(self, name: str, spec: TensorSpec) -> None:
        """Make `name` with a one-pixel pool, as a copy of the output of one convolution that serves all slots.

        The run time of integer convolutions with few output channels varies. If each slot has its own convolution, the
        slope of a block behind 3 or 10 channels is off by up to a quarter; with copies of one convolution, by 2 % (seen
        on the development machine; no benchmark shows it).
        """
        source = f"source_{'x'.join(map(str, spec.shape))}_{spec.dtype}"
        if all(source not in node.output for node in self._nodes):
            self._conv(source, spec)
        entering = self._dequantise(source, f"{name}_copied", spec.dtype, ACTIVATION_SCALE)
        self._node("MaxPool", [entering], f"{name}_float", kernel_shape=[1, 1])
        self._quantise(f"{name}_float", name, spec.dtype, ACTIVATION_SCALE)

    def _conv(self, name: str, spec: TensorSpec) -> None:
        """Make `name` with a 1x1 convolution of a shared feed, quantised on both sides if `spec` is a quantised
        tensor.
        """
        batch, channels, height, width = spec.shape
        dtype = "float32" if spec.dtype in QUANTISED else spec.dtype
        feed = self._input(f"feed_{height}x{width}_{dtype}", TensorSpec((batch, FEED_CHANNELS, height, width), dtype))
        weight = self._rng.standard_normal((channels, FEED_CHANNELS, 1, 1)) / 2
        quantised = spec.dtype in QUANTISED
        made = f"{name}_float" if quantised else name
        if quantised:
            feed = self._quantised_feed(feed, spec.dtype)
            entering = self._dequantise(feed, f"{name}_feed", spec.dtype, ACTIVATION_SCALE)
            weights = self._quantised_weight(f"{name}_w", weight)
        else:
            entering = feed
            weights = self._constant(f"{name}_w", weight.astype(dtype))
        self._node("Conv", [entering, weights], made, kernel_shape=[1, 1])
        if quantised:
            self._quantise(made, name, spec.dtype, ACTIVATION_SCALE)

    def _quantised_feed(self, feed: str, dtype: str) -> str:
        name = f"{feed}_{dtype}"
        if all(name not in node.output for node in self._nodes):
            self._quantise(feed, name, dtype, ACTIVATION_SCALE)
        return name

    # --- blocks, taps and joins ----------------------------------------------------------------------------

    def _block(self, slot: int, entering: Sequence[str]) -> list[str]:
        """Add a copy of the op's nodes; return the names of its outputs."""
        prefix = f"{BLOCK_PREFIX}{slot}/"
        names = {"": "", **{f"x{index}": name for index, name in enumerate(entering)}}
        for index, value in enumerate(random_constants(self._op, self._rng)):
            names[f"w{index}"] = self._constant(f"{prefix}w{index}", value)
        for node in self._op.nodes:
            names.update({name: f"{prefix}{name}" for name in node.outputs if name})
        self._nodes.extend(block_nodes(self._op, names, prefix))
        return [names[name] for name in self._op.outputs]

    def _tap(self, name: str, tensor: str, spec: TensorSpec) -> None:
        self._reduce(name, tensor, spec, "GlobalMaxPool", "ReduceMax", TAP_SCALE)

    def _join(self, name: str, tensor: str, spec: TensorSpec) -> None:
        if spec.dtype in (*FLOATS, *QUANTISED):
            self._reduce(name, tensor, spec, "GlobalAveragePool", "ReduceMean", ACTIVATION_SCALE)
        elif tensor.startswith(BLOCK_PREFIX):
            self._outputs.append((tensor, spec))

    def _reduce(self, name: str, tensor: str, spec: TensorSpec, pool: str, reduction: str, scale: float) -> None:
        """Add a graph output that depends on all of `tensor`: `pool` over height and width if it is 4-D, else
        `reduction`.

        Quantised 4-D tensors support only the average pool, so for these tensors the two callers differ only in
        `scale`.
        """
        quantised = spec.dtype in QUANTISED
        entering = self._dequantise(tensor, name, spec.dtype, ACTIVATION_SCALE) if quantised else tensor
        if len(spec.shape) != 4:
            self._node(reduction, [entering], name, keepdims=1)
            shape = (1,) * len(spec.shape)
            self._outputs.append((name, TensorSpec(shape, "float32" if quantised else spec.dtype)))
            return
        result = f"{name}_float" if quantised else name
        self._node("GlobalAveragePool" if quantised else pool, [entering], result)
        if quantised:
            self._quantise(result, name, spec.dtype, scale)
        self._outputs.append((name, TensorSpec((*spec.shape[:2], 1, 1), spec.dtype)))

    # --- parts ---------------------------------------------------------------------------------------------

    def _node(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(op_type, inputs, [output], name=f"make_{output}", **attributes))

    def _input(self, name: str, spec: TensorSpec) -> str:
        self._inputs.setdefault(name, spec)
        return name

    def _constant(self, name: str, value: np.ndarray) -> str:
        self._initializers.append(numpy_helper.from_array(value, name))
        return name

    def _parameters(self, name: str, dtype: str, scale: float) -> list[str]:
        middle = 128 if dtype == "uint8" else 0
        return [
            self._constant(f"{name}_scale", np.asarray(scale, np.float32)),
            self._constant(f"{name}_zero", np.asarray(middle, dtype)),
        ]

    def _quantise(self, tensor: str, output: str, dtype: str, scale: float) -> None:
        self._node("QuantizeLinear", [tensor, *self._parameters(output, dtype, scale)], output)

    def _dequantise(self, tensor: str, prefix: str, dtype: str, scale: float) -> str:
        output = f"{prefix}_entering"
        self._node("DequantizeLinear", [tensor, *self._parameters(output, dtype, scale)], output)
        return output

    def _quantised_weight(self, name: str, weight: np.ndarray) -> str:
        channels = weight.shape[0]
        inputs = [
            self._constant(f"{name}_int", np.clip(np.rint(weight * 64), -127, 127).astype(np.int8)),
            self._constant(f"{name}_scale", np.full(channels, 1 / 64, np.float32)),
            self._constant(f"{name}_zero", np.zeros(channels, np.int8)),
        ]
        self._node("DequantizeLinear", inputs, name, axis=0)
        return name


def block_nodes(op: Op, names: dict[str, str], prefix: str) -> list[onnx.NodeProto]:
    """Return the op's nodes with tensors renamed by `names` and nodes named `<prefix><index>`."""
    made = []
    for index, node in enumerate(op.nodes):
        attributes: dict[str, Any] = dict(node.attributes)
        inputs, outputs = ([names[name] for name in side] for side in (node.inputs, node.outputs))
        name = f"{prefix}{index}"
        made.append(helper.make_node(node.op_type, inputs, outputs, name, domain=node.domain, **attributes))
    return made


def output_specs(op: Op) -> list[TensorSpec]:
    """Return the shapes and dtypes of y0, y1, ... by ONNX shape inference.

    Raises InvalidInput if the shapes do not follow from the inputs.
    """
    rng = np.random.default_rng(int(hashlib.sha256(b"shapes").hexdigest()[:8], 16))
    local = [*(f"x{i}" for i in range(len(op.inputs))), *(f"w{i}" for i in range(len(op.constants)))]
    local += [name for node in op.nodes for name in node.outputs]
    graph = helper.make_graph(
        block_nodes(op, {name: name for name in ["", *local]}, ""),
        "block",
        [_value_info(f"x{index}", spec) for index, spec in enumerate(op.inputs)],
        [onnx.ValueInfoProto(name=name) for name in op.outputs],
        [numpy_helper.from_array(value, f"w{index}") for index, value in enumerate(random_constants(op, rng))],
    )
    try:
        inferred = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=_opset_imports(op)), strict_mode=True, data_prop=True
        )
    except onnx.shape_inference.InferenceError as error:
        raise InvalidInput("op", op.nodes, f"shape inference failed: {error}") from error
    return [_spec(value) for value in inferred.graph.output]


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    if tensor.elem_type == TensorProto.UNDEFINED or not tensor.HasField("shape"):
        raise InvalidInput("op", value.name, "the shape of this output does not follow from the inputs")
    if any(not dim.HasField("dim_value") for dim in tensor.shape.dim):
        raise InvalidInput("op", value.name, "this output has no fixed shape")
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(tuple(int(dim.dim_value) for dim in tensor.shape.dim), dtype)


def _opset_imports(op: Op) -> list[onnx.OperatorSetIdProto]:
    domains = sorted({node.domain for node in op.nodes} - {"", "ai.onnx"})
    return [helper.make_opsetid("", op.opset), *(helper.make_opsetid(domain, 1) for domain in domains)]


def _value_info(name: str, spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), spec.shape)


def fusion_mismatch(model: onnx.ModelProto, fused: Callable[[bytes], Sequence[frozenset[str]]]) -> bool:
    """Return True if `model` is a timing model in which a block does not run as exactly one kernel of `fused`.

    Return False for all other models. The answer is the same for all copies of the block, so it is taken from the first
    copy.
    """
    if all(entry.key != OP_METADATA for entry in model.metadata_props):
        return False
    prefix = f"{BLOCK_PREFIX}0/"
    block = frozenset(node.name for node in model.graph.node if node.name.startswith(prefix))
    return block not in fused(model.SerializeToString())
