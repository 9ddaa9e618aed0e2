"""TorchNetwork: a Network as a torch module that can be evaluated and trained, node by node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import Unsupported
from compress.network import Array, Network, Node
from compress.ops import find_row
from compress.ops.row import Mode, TorchOp


@dataclass(frozen=True)
class _Step:
    node: Node
    run: TorchOp
    inputs: tuple[str, ...]  # what is looked up at run time, "" for a left-out or steering input
    moded: bool
    dead: tuple[str, ...] = ()  # tensors nobody reads afterwards


class TorchNetwork(nn.Module):
    """The network's own weights as parameters, its graph as a list of torch calls.

    An op without a row, or a case its row does not cover, runs in onnxruntime and passes no gradient: `opaque`
    names such nodes, and what lies only before them does not train.

    Attributes:
        network: what it was built from.
        opaque: names of the nodes that run in onnxruntime.
        momentum: how fast running statistics follow in train mode (1 / count for a cumulative average).
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.momentum = 0.1
        self._parameter_of: dict[str, str] = {}
        self._buffer_of: dict[str, str] = {}
        opaque: list[str] = []
        steps = [self._step(node, opaque) for node in network.nodes]
        self.opaque = tuple(opaque)
        self._steps = _with_releases(steps, set(network.outputs))

    def _step(self, node: Node, opaque: list[str]) -> _Step:
        row = find_row(node)
        try:
            if row is None:
                raise Unsupported(f"{node.op_type} has no row")
            run = row.build(node, self.network)
        except Unsupported:
            opaque.append(node.name)
            run, row = _by_onnxruntime(node, self.network), None
        inputs = []
        for position, name in enumerate(node.inputs):
            steering = name in self.network.constants and not self._hold(name, position, row)
            inputs.append("" if steering else name)
        while row is not None and inputs and not inputs[-1]:
            inputs.pop()
        return _Step(node, run, tuple(inputs), row is not None and row.moded)

    def _hold(self, name: str, position: int, row: object) -> bool:
        """Register a constant as parameter or buffer; False for integers, which rows read when built."""
        value = self.network.constants[name]
        if row is None or value.dtype.kind != "f":
            return False
        if name in self._parameter_of or name in self._buffer_of:
            return True
        tensor = torch.from_numpy(np.array(value))
        trained = position in getattr(row, "trained", ()) and value.ndim > 0
        if trained:
            self._parameter_of[name] = f"weight_{len(self._parameter_of)}"
            self.register_parameter(self._parameter_of[name], nn.Parameter(tensor))
        else:
            self._buffer_of[name] = f"constant_{len(self._buffer_of)}"
            self.register_buffer(self._buffer_of[name], tensor)
        return True

    def weights(self) -> dict[str, nn.Parameter]:
        """The trained constants by their names in the network."""
        return {name: self.get_parameter(own) for name, own in self._parameter_of.items()}

    def held(self, name: str) -> Tensor:
        """The tensor, parameter or buffer, that holds this float constant. Raises KeyError."""
        own = self._parameter_of.get(name) or self._buffer_of[name]
        return getattr(self, own)  # type: ignore[no-any-return]  # nn.Module types attributes as Tensor | Module

    def forward(self, images: Tensor) -> Tensor:
        """(N, *input_shape) float32 -> the scored output, the logits (N, classes)."""
        return self._execute(images, None)[self.network.output_name]

    def run(
        self,
        images: Tensor,
        names: Iterable[str],
        edit: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """Named activations.

        Args:
            images: (N, *input_shape).
            names: tensors of the graph that are wanted.
            edit: tensor -> function applied to it as soon as it is made (gates, noise, taps).
        """
        wanted = set(names)
        env = self._execute(images, wanted, edit or {})
        return {name: env[name] for name in wanted}

    def _execute(
        self,
        images: Tensor,
        keep: set[str] | None,
        edit: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        mode = Mode(self.training, self.momentum)
        env: dict[str, Tensor] = {self.network.input_name: images}
        if edit and self.network.input_name in edit:
            env[self.network.input_name] = edit[self.network.input_name](images)
        for name, own in (*self._parameter_of.items(), *self._buffer_of.items()):
            env[name] = getattr(self, own)
        for step in self._steps:
            arguments = [env[name] if name else None for name in step.inputs]
            made = step.run(mode, *arguments) if step.moded else step.run(*arguments)
            outputs: Sequence[Tensor] = (made,) if isinstance(made, Tensor) else made
            for name, tensor in zip(step.node.outputs, outputs, strict=False):
                env[name] = edit[name](tensor) if edit and name in edit else tensor
            for name in step.dead:
                if keep is None or name not in keep:
                    del env[name]
        return env

    def write_back(self) -> dict[str, Array]:
        """Weights and running statistics by constant name, for `network.with_constants`."""
        names = (*self._parameter_of, *self._buffer_of)
        return {
            name: self.held(name).detach().cpu().numpy().astype(self.network.constants[name].dtype).copy()
            for name in names
        }

    def to_network(self) -> Network:
        """The network with the weights as they are now."""
        return self.network.with_constants(self.write_back())


def _with_releases(steps: list[_Step], outputs: set[str]) -> list[_Step]:
    """Each activation is dropped after its last reader, so that memory is that of the widest cut of the graph."""
    seen, result = set(outputs), []
    made = {name for step in steps for name in step.node.outputs}
    for step in reversed(steps):
        names = dict.fromkeys((*step.inputs, *step.node.outputs))
        dead = tuple(name for name in names if name and name in made and name not in seen)
        seen.update(dead)
        result.append(replace(step, dead=dead))
    return result[::-1]


def _by_onnxruntime(node: Node, network: Network) -> TorchOp:
    """Run one node in onnxruntime, without a gradient. Its constant inputs are baked in."""
    from compress.network import TensorType
    from compress.verify import session

    activations = [name for name in node.inputs if name and name not in network.constants]
    single = Network(
        (node,),
        {name: network.constants[name] for name in node.inputs if name in network.constants},
        {name: network.types.get(name, TensorType((), "float32")) for name in dict.fromkeys(activations)},
        {name: network.types[name] for name in node.outputs if name},
        network.opset,
        network.ir_version,
        network.types,
    )
    runner = session(single.save())
    wanted = [name for name in node.outputs if name]

    def run(*tensors: Tensor | None) -> tuple[Tensor, ...]:
        given = {
            name: tensor.detach().cpu().numpy()
            for name, tensor in zip(node.inputs, tensors, strict=False)
            if tensor is not None
        }
        return tuple(torch.from_numpy(np.asarray(value)) for value in runner.run(wanted, given))

    return run
