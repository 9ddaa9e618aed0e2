"""Gates: the first-order change of the loss if a unit were zero wherever it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import InvalidInput
from compress.graph.edit import edited
from compress.graph.groups import Block
from compress.graph.module import TorchNetwork
from compress.network import Network, Node
from compress.ops.row import Slot
from compress.task import Targets
from compress.tasks import DEFAULT, load


@dataclass(frozen=True)
class Gate:
    """The tensor that a reader reads, and its channel axis."""

    tensor: str
    axis: int


Products = dict[str, NDArray[np.float64]]
Edge = tuple[Slot, str]  # (the reading axis of the weight, the activation that it reads)


def gate_products(
    network: Network,
    blocks: Sequence[Block],
    images: NDArray[np.float32],
    targets: Targets | None,
    batch: int,
) -> Iterator[Products]:
    """Yield activation times gradient per sample and unit, summed over positions and over all readers of the unit.

    There is a gate at the input of each reader, not on the tensor. On a residual stream, the tensor's own gradient
    includes the part through the addition, which a later gate of the same unit would count again.

    Args:
        images: (N, *input_shape) float32.
        targets: (N, ...); None takes the network's own predictions, as the default task reads them.

    Yields:
        For each batch: block name -> (batch, width) float64; a unit that no gradient reaches has zeros.

    Raises:
        InvalidInput: the output has no gradient at all.
    """
    gated, gates = _gated(network, blocks)
    module = TorchNetwork(gated).eval().requires_grad_(False)
    task = load(DEFAULT) if targets is None else targets.task
    learned = task.learned(gated)
    for start in range(0, len(images), batch):
        part = torch.from_numpy(images[start : start + batch]).requires_grad_()
        seen: dict[str, NDArray[np.float64]] = {}
        edit = {gate.tensor: _recorder(gate, seen) for gate in gates.values()}
        made = module.run(part, [learned], edit)[learned]
        if not made.requires_grad:
            walls = ", ".join(module.opaque)
            raise InvalidInput(
                "importance",
                None,
                f"no gradient passes through {walls}: use an importance based on weights",
            )
        known = None if targets is None else torch.from_numpy(targets[start : start + batch].values)
        wanted = task.predicted(made) if known is None else known
        task.loss(made, wanted, reduction="sum").backward()  # type: ignore[no-untyped-call]  # torch's
        yield {block.name: _of_block(block, gates, seen, len(part)) for block in blocks}


def _gated(network: Network, blocks: Sequence[Block]) -> tuple[Network, dict[Edge, Gate]]:
    """Return the network with an Identity in front of every reader, and the gate of each reader."""
    gates: dict[Edge, Gate] = {}
    nodes = {node.name: node for node in network.nodes}
    for block in blocks:
        for edge in block.readers:
            (weight, _), tensor = edge
            axis = next(axis for name, axis in block.slots if name == tensor)
            gates[edge] = Gate(f"{tensor}/gate/{weight}", axis)
            for node in network.consumers(weight):
                own = nodes[node.name]
                inputs = tuple(gates[edge].tensor if name == tensor else name for name in own.inputs)
                nodes[node.name] = replace(own, inputs=inputs)
    identities = [Node("Identity", gate.tensor, (tensor,), (gate.tensor,)) for (_, tensor), gate in gates.items()]
    return edited(network, [*nodes.values(), *identities], network.constants), gates


def _recorder(gate: Gate, seen: dict[str, NDArray[np.float64]]) -> Callable[[Tensor], Tensor]:
    """Return an edit that passes the tensor on and stores tensor times gradient, summed per sample and channel."""

    def record(value: Tensor) -> Tensor:
        others = [axis for axis in range(1, value.ndim) if axis != gate.axis]
        own = value.detach()

        def keep(gradient: Tensor) -> None:
            product = value.detach() * gradient
            seen[gate.tensor] = (product.sum(others) if others else product).double().numpy()

        # A separate tensor, because the hook must see the gradient of this reader alone. If no gradient passes back
        # beyond this tensor, the tensor becomes the leaf.
        passed = value.view_as(value) if value.requires_grad else own.requires_grad_()
        passed.register_hook(keep)  # type: ignore[no-untyped-call]  # torch's
        return passed

    return record


def _of_block(
    block: Block, gates: Mapping[Edge, Gate], seen: Mapping[str, NDArray[np.float64]], samples: int
) -> NDArray[np.float64]:
    total = np.zeros((samples, block.width))
    for edge in block.readers:
        gate = gates[edge]
        if gate.tensor in seen:
            total += seen[gate.tensor][:, block.slots[(edge[1], gate.axis)]].sum(2)
    return total
