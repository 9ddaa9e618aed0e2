"""Op: a block of nodes that a runtime runs as one kernel, described well enough to be timed elsewhere.

An op holds shapes and attributes but no network's weights: constants without a value get random numbers when a timing
model is built (`timing_model.py`). Its key covers everything that a runtime's choice of kernel can depend on; the
columns of `features` are for predictors only and never identify an op.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from hw_profiles.errors import InvalidInput

Attribute: TypeAlias = "int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]"
Nested: TypeAlias = "int | float | bool | tuple[Nested, ...]"

# Maximum number of elements of a constant whose value is part of an op: shapes, pads, axes, bounds; never weights.
MAX_VALUE_ELEMENTS = 64
PRODUCERS = ("input", "blocked", "plain")
FLOATS = ("float32", "float16", "float64")
QUANTISED = ("uint8", "int8")
_QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class TensorSpec:
    """Shape (batch included, normally 1) and numpy dtype name of a tensor."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if any(not isinstance(size, int) or size < 0 for size in self.shape):
            raise InvalidInput("shape", self.shape, "sizes must be whole numbers >= 0")

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Constant:
    """A constant input. `value` is given if the kernel depends on it (a shape, pads, a Clip bound, a zero point). None
    stands for weights: they are drawn at random, so that one timing serves every network.
    """

    spec: TensorSpec
    value: Nested | None = None

    def __post_init__(self) -> None:
        if self.value is not None and self.spec.elements > MAX_VALUE_ELEMENTS:
            raise InvalidInput(
                "value", self.spec.shape, f"must have at most {MAX_VALUE_ELEMENTS} elements to be part of an op"
            )


@dataclass(frozen=True)
class OpNode:
    """One ONNX node with local tensor names; an absent optional input is the empty string."""

    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[tuple[str, Attribute], ...] = ()
    domain: str = ""

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return the value of attribute `name`, or `default`."""
        return next((value for key, value in self.attributes if key == name), default)


Layout: TypeAlias = Callable[[TensorSpec, str], str]
"""A runtime's rule: a function that returns which of PRODUCERS applies to a tensor made by a block of these op types
(see `Op.of`).
"""


def plain(spec: TensorSpec, made_by: str) -> str:
    """Return the layout for a runtime that has only one layout; a producer that is already a word of PRODUCERS is
    returned unchanged.
    """
    return made_by if made_by in PRODUCERS else "plain"


@dataclass(frozen=True)
class Op:
    """A fused block. Tensor names are local: `x0..` incoming activations, `w0..` constants, `t0..` inner tensors,
    `y0..` outputs, each numbered in the order of first use; `Op.of` assigns them.

    `producers` has one of PRODUCERS per activation: `input` for an input of the network, `blocked` for a tensor that
    arrives in the runtime's blocked (quantised: channels-last) layout, `plain` for any other tensor. Nothing else about
    a producer affects the choice of kernel.

    Raises InvalidInput if a name is used before it is defined, or if lengths disagree.
    """

    nodes: tuple[OpNode, ...]
    inputs: tuple[TensorSpec, ...]
    constants: tuple[Constant, ...]
    producers: tuple[str, ...]
    opset: int

    def __post_init__(self) -> None:
        if not self.nodes:
            raise InvalidInput("nodes", self.nodes, "must have at least one node")
        if len(self.producers) != len(self.inputs):
            raise InvalidInput(
                "producers", self.producers, f"must have one word for each of the {len(self.inputs)} inputs"
            )
        if not set(self.producers) <= set(PRODUCERS):
            raise InvalidInput("producers", self.producers, f"must each be one of {', '.join(PRODUCERS)}")
        defined = {f"x{i}" for i in range(len(self.inputs))} | {f"w{i}" for i in range(len(self.constants))}
        for node in self.nodes:
            unknown = [name for name in node.inputs if name and name not in defined]
            if unknown:
                raise InvalidInput("nodes", unknown[0], f"{node.op_type} uses a tensor that nothing defines")
            defined.update(node.outputs)
        if not self.outputs:
            raise InvalidInput("nodes", self.nodes, "no node has an output named y0")

    @classmethod
    def of(
        cls,
        nodes: Sequence[OpNode],
        inputs: Mapping[str, tuple[TensorSpec, str]],
        constants: Mapping[str, Constant],
        outputs: Sequence[str],
        opset: int,
        layout: Layout = plain,
    ) -> Op:
        """Make an op from nodes with any tensor names. `inputs` gives each activation's spec and its producer: `input`
        for an input of the network, else the lower-case op types of the block that made it, joined by `+`
        (`conv+relu`).

        Nodes must be in topological order. Unused tensors (outputs not in `outputs`) stay. Values of quantisation
        parameters are kept only if a kernel can depend on them (see `_parameter`), so that networks calibrated on
        different data share their ops. Raises InvalidInput if a node reads a tensor that is neither an input nor made
        by an earlier node.
        """
        names = {"": ""}
        parameters = {name for n in nodes if n.op_type in _QUANTISERS for name in n.inputs[1:3]}
        taken: dict[str, list[str]] = {"x": [], "w": [], "t": [], "y": []}

        def local(name: str, kind: str) -> str:
            if name not in names:
                names[name] = f"{kind}{len(taken[kind])}"
                taken[kind].append(name)
            return names[name]

        renamed = []
        for node in nodes:
            for name in node.inputs:
                if name not in names and name not in inputs and name not in constants:
                    raise InvalidInput("nodes", name, f"{node.op_type} uses a tensor that nothing defines")
                local(name, "w" if name in constants else "x")
            made = tuple(local(name, "y" if name in outputs else "t") for name in node.outputs)
            used = tuple(names[name] for name in node.inputs)
            renamed.append(OpNode(node.op_type, used, made, tuple(sorted(node.attributes)), node.domain))
        return cls(
            nodes=tuple(renamed),
            inputs=tuple(inputs[name][0] for name in taken["x"]),
            constants=tuple(
                _parameter(constants[name]) if name in parameters else constants[name] for name in taken["w"]
            ),
            producers=tuple(layout(*inputs[name]) for name in taken["x"]),
            opset=opset,
        )

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Local names of the outputs, y0 first."""
        found = [name for node in self.nodes for name in node.outputs if name.startswith("y")]
        return tuple(sorted(found, key=lambda name: int(name[1:])))

    @cached_property
    def key(self) -> str:
        """sha256 (hex) of the canonical JSON of the whole op."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.key)

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings, from which `from_json` makes an equal op."""
        return {
            "nodes": [
                [
                    n.op_type,
                    n.domain,
                    list(n.inputs),
                    list(n.outputs),
                    [[k, _plain(v)] for k, v in n.attributes],
                ]
                for n in self.nodes
            ],
            "inputs": [[list(spec.shape), spec.dtype] for spec in self.inputs],
            "constants": [[list(c.spec.shape), c.spec.dtype, _plain(c.value)] for c in self.constants],
            "producers": list(self.producers),
            "opset": self.opset,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Op:
        """Read the output of `to_json`. Raises InvalidInput if `data` is anything else."""
        try:
            nodes = tuple(
                OpNode(op_type, tuple(used), tuple(made), tuple((k, _nested(v)) for k, v in attrs), domain)
                for op_type, domain, used, made, attrs in data["nodes"]
            )
            return cls(
                nodes=nodes,
                inputs=tuple(TensorSpec(tuple(shape), dtype) for shape, dtype in data["inputs"]),
                constants=tuple(
                    Constant(TensorSpec(tuple(shape), dtype), _nested(value))
                    for shape, dtype, value in data["constants"]
                ),
                producers=tuple(data["producers"]),
                opset=int(data["opset"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput("op", data, f"not the JSON form of an op: {error}") from error


def _parameter(constant: Constant) -> Constant:
    """Return a scale or zero point without its value, unless it is a zero point at the low end of its range: with such
    a zero point, a ReLU does no more than limit the range, and runtimes drop the ReLU.
    """
    dtype = np.dtype(constant.spec.dtype)
    at_low_end = dtype.kind in "iu" and constant.value == np.iinfo(dtype).min
    return constant if at_low_end else Constant(constant.spec)


def _plain(value: Any) -> Any:
    """Return nested tuples as lists; floats that JSON lacks become {"float": "inf"}."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _nested(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_nested(item) for item in value)
    if isinstance(value, dict):
        return float(value["float"])
    return value
