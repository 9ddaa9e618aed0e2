"""Private constants: each use of a constant gets its own copy, except weights that are tied on purpose."""

from __future__ import annotations

from dataclasses import replace

from compress.graph.names import Names
from compress.network import Network, frozen

TIED_ROLES = frozenset({("Conv", 1), ("Gemm", 1), ("MatMul", 1), ("MatMul", 0), ("ConvTranspose", 1)})


def private_constants(network: Network) -> Network:
    """Give each use of a constant its own copy, except a weight used again in the same role, which is tied."""
    constants = dict(network.constants)
    seen, names = dict[str, set[tuple[str, int]]](), Names(network)
    nodes, halves = [], set(network.halves)
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
                halves |= {inputs[position]} if name in halves else set()
            else:
                earlier.add(role)
        nodes.append(replace(node, inputs=tuple(inputs)))
    return replace(network, nodes=tuple(nodes), constants=frozen(constants), halves=frozenset(halves))
