"""Names: what an edit adds to a network is called like nothing that was there."""

from __future__ import annotations

from compress.network import Network


class Names:
    """Names for new tensors and nodes: none that the network has, none that was given before."""

    def __init__(self, network: Network) -> None:
        self._taken = {*network.constants, *network.inputs, *network.outputs}
        for node in network.nodes:
            self._taken.update((node.name, *node.inputs, *node.outputs))

    def new(self, wanted: str) -> str:
        """The wanted name, with as many underscores behind it as make it a new one."""
        while wanted in self._taken:
            wanted += "_"
        self._taken.add(wanted)
        return wanted
