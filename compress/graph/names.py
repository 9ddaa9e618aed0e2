"""Names: unused names for the tensors and nodes that an edit adds to a network."""

from __future__ import annotations

from compress.network import Network


class Names:
    """A source of names that the network does not use and that no earlier call returned."""

    def __init__(self, network: Network) -> None:
        self._taken = {*network.constants, *network.inputs, *network.outputs}
        for node in network.nodes:
            self._taken.update((node.name, *node.inputs, *node.outputs))

    def new(self, wanted: str) -> str:
        """Return the wanted name, with underscores appended until it is unused."""
        while wanted in self._taken:
            wanted += "_"
        self._taken.add(wanted)
        return wanted
