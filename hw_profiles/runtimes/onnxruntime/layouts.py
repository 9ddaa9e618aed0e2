"""Layouts of onnxruntime on the CPU: which tensors are blocked by channels when a kernel reads them."""

from __future__ import annotations

from hw_profiles.ops import FLOATS, PRODUCERS, QUANTISED, Op, TensorSpec

# Op types that leave a 4-D tensor in the blocked layout. An elementwise op that follows a convolution is fused into it,
# so an elementwise op on its own means that the blocked stretch ended before it; quantised elementwise ops work in the
# layout of their inputs and leave their outputs in it.
BLOCKED_TYPES = frozenset({"conv", "maxpool", "averagepool", "globalaveragepool", "globalmaxpool"})
ELEMENTWISE_TYPES = frozenset({"add", "mul", "relu", "leakyrelu", "clip", "sigmoid", "concat", "batchnormalization"})
_CASTS = frozenset({"quantizelinear", "dequantizelinear"})


def layout(spec: TensorSpec, made_by: str) -> str:
    """Return the word of PRODUCERS that applies to a tensor made by a block of these op types (see `Op.of`)."""
    words = set(made_by.split("+"))
    if made_by in PRODUCERS:
        return made_by
    if len(spec.shape) != 4 or spec.dtype not in (*FLOATS, *QUANTISED):
        return "plain"
    keeps = spec.dtype in QUANTISED and bool(words & ELEMENTWISE_TYPES)
    return "blocked" if words & BLOCKED_TYPES or keeps else "plain"


def leaves_blocked(op: Op) -> bool:
    """Return True if the op's 4-D outputs are in the blocked layout, either because of its own nodes or because its
    inputs are.
    """
    kinds = {node.op_type.lower() for node in op.nodes} - _CASTS
    kept = all(producer == "blocked" for producer in op.producers)
    return "conv" in kinds or (kinds <= BLOCKED_TYPES | ELEMENTWISE_TYPES and kept)
