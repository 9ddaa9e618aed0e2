"""Network: the form in which Netlathe holds every network, an ONNX graph as an immutable value."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compress.errors import InvalidInput
from compress.half_floats import is_half, nearest_half

Array = NDArray[Any]
BATCH = "batch"
SCORED = "netlathe.output"  # the metadata key for the scored output of a file with several outputs


@dataclass(frozen=True)
class Node:
    """One operation of the graph.

    Attributes:
        inputs: tensor names, "" for an omitted optional input.
        opaque: why the op tables are not used for this node; "" if they are.
    """

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""
    opaque: str = ""

    def input(self, position: int) -> str:
        """Return the input's tensor name; "" if it is omitted."""
        return self.inputs[position] if position < len(self.inputs) else ""

    def get(self, attribute: str, default: Any) -> Any:
        """Return the attribute's value, or `default`, which must be ONNX's default."""
        return self.attributes.get(attribute, default)


@dataclass(frozen=True)
class TensorType:
    """Type of a tensor. `shape` is the shape at batch 1; `batch_axis` is the axis that follows the batch, if any."""

    shape: tuple[int, ...]
    dtype: str
    batch_axis: int | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """An ONNX graph, normalised, with the type of every tensor. Editing gives a new Network; `digest` compares two.

    Attributes:
        nodes: in execution order, uniquely named.
        constants: initializers as read-only arrays. A weight used twice in the same role is one constant (tied).
        inputs, outputs: the graph's inputs and outputs; their names are the user's names and never change.
        opset: the domains and their versions.
        types: type of every tensor that is not a constant.
        warnings: what normalising changed or could not do, for the user.
        scored: the output that is scored if it is not the first; the other outputs are kept as they are.
        halves: names of the float32 constants that the uploaded file stored as float16 behind a Cast.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]
    opset: Mapping[str, int]
    ir_version: int
    types: Mapping[str, TensorType] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()
    scored: str | None = None
    halves: frozenset[str] = frozenset()

    def save(self) -> bytes:
        """Return the network as the bytes of an ONNX file; the same network gives the same bytes."""
        return bytes(self.to_proto().SerializeToString(deterministic=True))

    @cached_property
    def digest(self) -> str:
        """The sha256 of the saved file."""
        return hashlib.sha256(self.save()).hexdigest()

    @property
    def input_name(self) -> str:
        """Name of the only input."""
        return next(iter(self.inputs))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample, without the batch: (C, H, W) for images."""
        return self.inputs[self.input_name].shape[1:]

    @property
    def output_name(self) -> str:
        """Name of the output that is scored: the logits."""
        return self.scored or next(iter(self.outputs))

    def scoring(self, output: str) -> Network:
        """Return the network with this output scored; saved files keep the choice, see `compress.graph.outputs`."""
        first = next(iter(self.outputs))
        return replace(self, scored=None if output == first else output)

    @cached_property
    def _producers(self) -> Mapping[str, Node]:
        return {output: node for node in self.nodes for output in node.outputs if output}

    @cached_property
    def _consumers(self) -> Mapping[str, tuple[Node, ...]]:
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name:
                    found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    def producer(self, tensor: str) -> Node | None:
        """Return the node that produces this tensor; None for inputs and constants."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """Return the nodes that read this tensor, in execution order, each once."""
        return self._consumers.get(tensor, ())

    def node(self, name: str) -> Node:
        """Return the node of this name. Raises KeyError."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Return the shape of a constant, or of an activation at batch 1."""
        if tensor in self.constants:
            return tuple(int(size) for size in self.constants[tensor].shape)
        return self.types[tensor].shape

    def sole_consumer(self, tensor: str) -> Node | None:
        """Return the only node that reads the tensor; None if several do, or if it is an output of the network."""
        readers = self.consumers(tensor)
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def with_constants(self, updates: Mapping[str, Array]) -> Network:
        """Return the graph with new values of the same shapes; values of constants in `halves` are rounded to float16.

        Raises:
            ValueError: a name is unknown or a shape differs.
        """
        for name, value in updates.items():
            if name not in self.constants or self.constants[name].shape != value.shape:
                raise ValueError(f"constant {name!r}: {value.shape} does not replace {self.constants.get(name)!r}")
        return replace(self, constants=frozen({**self.constants, **updates})).rounded()

    def rounded(self) -> Network:
        """Return the network with `halves` rounded to float16, so that they can be stored as in the uploaded file."""
        given = {name: self.constants[name] for name in self.halves if name in self.constants}
        nearest = {name: nearest_half(value) for name, value in given.items() if not is_half(value)}
        return replace(self, constants=frozen({**self.constants, **nearest})) if nearest else self

    def stored(self, name: str) -> Array:
        """Return a constant in the form of the file: float16 if it is one of `halves` and nothing is lost."""
        value = self.constants[name]
        return value.astype(np.float16) if name in self.halves and is_half(value) else value

    def to_proto(self) -> onnx.ModelProto:
        """Return the network as an onnx ModelProto. The only metadata is a scored output that is not the first."""
        held, casts = self._held()
        graph = helper.make_graph(
            [*casts, *(node_proto(node) for node in self.nodes)],
            "network",
            [_value_info(name, kind) for name, kind in self.inputs.items()],
            [_value_info(name, self.types.get(name, kind)) for name, kind in self.outputs.items()],
            held,
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in sorted(self.opset.items())]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version, producer_name="netlathe")
        if self.scored is not None:
            helper.set_model_props(model, {SCORED: self.scored})
        return model

    def _held(self) -> tuple[list[TensorProto], list[onnx.NodeProto]]:
        """Return the constants in the form of the file, float16 last, and the Casts that widen float16 constants."""
        whole, halves, casts = list[TensorProto](), list[TensorProto](), list[onnx.NodeProto]()
        for name in self.constants:
            value = np.asarray(self.stored(name), order="C")
            if value.dtype == self.constants[name].dtype:
                whole.append(numpy_helper.from_array(value, name))
            else:
                cast = self.widening(name)
                halves.append(numpy_helper.from_array(value, cast.inputs[0]))
                casts.append(node_proto(cast))
        return [*whole, *halves], casts

    @property
    def casts(self) -> frozenset[str]:
        """Names of the Casts in the saved file that widen float16 constants and are not nodes of the network."""
        return frozenset(self.widening(name).name for name in self.halves if name in self.constants)

    def widening(self, name: str) -> Node:
        """Return the Cast behind a constant that is stored as float16. Names that it adds are unused in the network."""
        source, widened = f"{name}/half", f"{name}/widened"
        while source in self._names or widened in self._names:
            source, widened = f"{source}_", f"{widened}_"
        return Node("Cast", widened, (source,), (name,), {"to": int(TensorProto.FLOAT)})

    @cached_property
    def _names(self) -> frozenset[str]:
        tensors = (name for node in self.nodes for name in (node.name, *node.inputs, *node.outputs))
        return frozenset((*self.constants, *self.inputs, *self.outputs, *tensors))


def frozen(constants: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return the constants as read-only arrays."""
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    for value in arrays.values():
        value.flags.writeable = False
    return MappingProxyType(arrays)


def _value_info(name: str, kind: TensorType) -> onnx.ValueInfoProto:
    shape: list[int | str] = list(kind.shape)
    if kind.batch_axis is not None:
        shape[kind.batch_axis] = BATCH
    return helper.make_tensor_value_info(name, _element_type(kind.dtype), shape)


def _element_type(dtype: str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def node_proto(node: Node) -> onnx.NodeProto:
    """Return a NodeProto of a Node; attributes are sorted, so that equal nodes give equal bytes."""
    proto = helper.make_node(node.op_type, list(node.inputs), list(node.outputs), name=node.name, domain=node.domain)
    for key, value in sorted(node.attributes.items()):
        proto.attribute.append(_attribute(key, value))
    return proto


def _attribute(key: str, value: Any) -> onnx.AttributeProto:
    if isinstance(value, onnx.AttributeProto):
        return value
    if isinstance(value, np.ndarray):
        return helper.make_attribute(key, numpy_helper.from_array(value))
    if value == ():  # an empty list does not show its type, but all lists that may be empty here hold integers
        return helper.make_attribute(key, value, attr_type=onnx.AttributeProto.INTS)
    return helper.make_attribute(key, value)


def read_node(proto: onnx.NodeProto, name: str) -> Node:
    """Return a Node of a NodeProto; attributes that hold graphs or types are kept as they are."""
    attributes: dict[str, Any] = {}
    for attribute in proto.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, TensorProto):
            value = numpy_helper.to_array(value)
        elif isinstance(value, bytes):
            value = value.decode()
        elif attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
            value = tuple(value)
        elif not isinstance(value, int | float):
            value = attribute
        attributes[attribute.name] = value
    return Node(proto.op_type, name, tuple(proto.input), tuple(proto.output), attributes, proto.domain)


def parse(source: bytes | Path | str) -> onnx.ModelProto:
    """Parse the bytes of an ONNX file, without reading any other file.

    Raises:
        InvalidInput: the bytes are not a protobuf of a model, or tensors lie in other files or have an unknown type.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError is not a public, stable class
        raise InvalidInput("file", None, f"not a readable ONNX file (truncated or corrupt?): {error}") from error
    if not model.graph.node:
        raise InvalidInput("file", None, "the ONNX file holds no graph (truncated or corrupt?)")
    for tensor in _all_tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise InvalidInput(
                "file",
                tensor.name[:80],
                "the file keeps weights in other files (external data); save it as one file: "
                "onnx.save(onnx.load('model.onnx'), 'single.onnx')",
            )
        if tensor.data_type not in TensorProto.DataType.values() or tensor.data_type == TensorProto.UNDEFINED:
            raise InvalidInput(
                "file",
                tensor.data_type,
                f"the numbers of tensor {tensor.name[:80]!r} are of type {tensor.data_type}, which ONNX does not have",
            )
    return model


def _all_tensors(graph: onnx.GraphProto) -> Iterable[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
            for inner in [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs:
                yield from _all_tensors(inner)
