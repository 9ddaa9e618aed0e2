"""TorchNetwork: a Network as a torch module that can be evaluated and trained, node by node."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import Unsupported
from compress.graph.opaque import by_onnxruntime
from compress.network import Array, Network, Node
from compress.ops import find_row
from compress.ops.row import Mode, Row, TorchOp


@dataclass(frozen=True)
class _Step:
    node: Node
    run: TorchOp
    inputs: tuple[str, ...]  # names looked up at run time; "" for an input that is omitted or baked into `run`
    moded: bool
    dead: tuple[str, ...] = ()  # tensors that no later step reads


class TorchNetwork(nn.Module):
    """A torch module of a network: its weights are parameters, its graph is a list of torch calls.

    A node whose op has no row, or whose case the row does not cover, runs in onnxruntime and passes no gradient.
    `opaque` names such nodes. Layers whose output passes only through them do not train. A row that reads an integer
    constant (a shape, an axis) when it is built also gets this constant at run time, because only the row knows which
    of its inputs are data.

    Attributes:
        network: the network that it was built from.
        opaque: names of the nodes that run in onnxruntime.
        momentum: how fast running statistics follow the batches in train mode (1 / count for a cumulative average).
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.momentum = 0.1
        self._parameter_of: dict[str, str] = {}
        self._buffer_of: dict[str, str] = {}
        self._integer_of: dict[str, str] = {}
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
            self._hold(node, row)
        except Unsupported:
            opaque.append(node.name)
            inputs = ["" if name in self.network.constants else name for name in node.inputs]
            return _Step(node, by_onnxruntime(node, self.network), tuple(inputs), moded=False)
        inputs = list(node.inputs)
        while inputs and not inputs[-1]:
            inputs.pop()
        return _Step(node, run, tuple(inputs), row.moded)

    def _hold(self, node: Node, row: Row) -> None:
        """Register the node's constants as parameters or buffers. Raises Unsupported for types that torch lacks."""
        for position, name in enumerate(node.inputs):
            if name not in self.network.constants or name in self._constant_names():
                continue
            value = self.network.constants[name]
            try:
                tensor = torch.from_numpy(np.array(value))
            except TypeError as error:
                raise Unsupported(f"{node.op_type} of {value.dtype} numbers") from error
            if not tensor.is_floating_point():
                self._integer_of[name] = f"integer_{len(self._integer_of)}"
                self.register_buffer(self._integer_of[name], tensor, persistent=False)
            elif position in row.trained and value.ndim > 0:
                self._parameter_of[name] = f"weight_{len(self._parameter_of)}"
                self.register_parameter(self._parameter_of[name], nn.Parameter(tensor))
            else:
                self._buffer_of[name] = f"constant_{len(self._buffer_of)}"
                self.register_buffer(self._buffer_of[name], tensor)

    def _constant_names(self) -> Mapping[str, str]:
        return ChainMap(self._parameter_of, self._buffer_of, self._integer_of)

    def weights(self) -> dict[str, nn.Parameter]:
        """Return the trained constants by their names in the network."""
        return {name: self.get_parameter(own) for name, own in self._parameter_of.items()}

    def held(self, name: str) -> Tensor:
        """Return the parameter or buffer that holds this float constant. Raises KeyError."""
        own = self._parameter_of.get(name) or self._buffer_of[name]
        return getattr(self, own)  # type: ignore[no-any-return]  # nn.Module types attributes as Tensor | Module

    def forward(self, images: Tensor) -> Tensor:
        """Return the scored output, the logits (N, classes), of images (N, *input_shape) float32."""
        return self._execute(images, None)[self.network.output_name]

    def run(
        self,
        images: Tensor,
        names: Iterable[str],
        edit: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """Return the named activations.

        Args:
            images: (N, *input_shape).
            names: tensors of the graph that are wanted.
            edit: tensor -> function that is applied to the tensor as soon as it is computed (gates, noise, taps).
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
        env |= {name: getattr(self, own) for name, own in self._constant_names().items()}
        for step in self._steps:
            for name, tensor in _made(step, mode, env).items():
                env[name] = edit[name](tensor) if edit and name in edit else tensor
            for name in step.dead:
                if keep is None or name not in keep:
                    del env[name]
        return env

    def made(self, node: str, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs of one node for the given inputs, in eval mode.

        Args:
            given: tensor of the graph -> its value; a constant given here replaces the module's own.
        """
        step = next(step for step in self._steps if step.node.name == node)
        own = {name: getattr(self, held) for name, held in self._constant_names().items() if name in step.inputs}
        return _made(step, Mode(training=False), {**own, **given})

    def write_back(self) -> dict[str, Array]:
        """Return weights and running statistics by constant name, for `network.with_constants`."""
        names = (*self._parameter_of, *self._buffer_of)
        return {
            name: self.held(name).detach().cpu().numpy().astype(self.network.constants[name].dtype).copy()
            for name in names
        }

    def to_network(self) -> Network:
        """Return the network with the current weights."""
        return self.network.with_constants(self.write_back())


def _made(step: _Step, mode: Mode, env: Mapping[str, Tensor]) -> dict[str, Tensor]:
    arguments = [env[name] if name else None for name in step.inputs]
    made = step.run(mode, *arguments) if step.moded else step.run(*arguments)
    outputs: Sequence[Tensor] = (made,) if isinstance(made, Tensor) else made
    return {name: tensor for name, tensor in zip(step.node.outputs, outputs, strict=False) if name}


def _with_releases(steps: list[_Step], outputs: set[str]) -> list[_Step]:
    """Drop each activation after its last reader, so that only activations still needed take memory."""
    seen, result = set(outputs), []
    made = {name for step in steps for name in step.node.outputs}
    for step in reversed(steps):
        names = dict.fromkeys((*step.inputs, *step.node.outputs))
        dead = tuple(name for name in names if name and name in made and name not in seen)
        seen.update(dead)
        result.append(replace(step, dead=dead))
    return result[::-1]
