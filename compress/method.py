"""The contract of compression methods: a method gives knobs, then an operator, which gives a new network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from compress.evidence import Evidence
from compress.network import Array, Network
from compress.pruning.effective_weights import Weights
from compress.task import Targets
from search.space import Knob, Values

Stage: TypeAlias = Literal["structure", "sparsity", "precision", "storage"]
"""The stages in the order of application: remove channels, then single weights, then bits; `storage` packs the file.

The stage `structure` comes before reconstruction and training; all other stages come after them.
"""
STAGES: tuple[Stage, ...] = get_args(Stage)
AFTER_TRAINING = STAGES[1:]

Widths: TypeAlias = Mapping[str, Sequence[int]]
"""Block name -> the widths worth trying on the devices at hand, ascending."""


class Operator(Protocol):
    """A method bound to values; it is immutable and has a readable repr."""

    @property
    def stage(self) -> Stage:
        """The stage at which the operator is applied."""
        ...

    def rewrite(self, network: Network, evidence: Evidence) -> Network:
        """Return the compressed network; the given network does not change.

        Raises:
            InvalidInput: a value or the evidence does not fit the network, or evidence is missing.
        """
        ...

    def project(self, network: Network, weights: Weights) -> dict[str, Array]:
        """Return the C step: the given weights, projected onto the weights that a compressed network can have.

        Shapes do not change. Among all such weights with the same zeros, the result is the nearest (Euclidean). A
        second projection changes nothing.

        Args:
            network: the network of the weights; only its graph matters, not its values.
            weights: every trained constant, with the weights of layers in their effective form; not changed.

        Raises:
            InvalidInput: a value does not fit the network.
        """
        ...

    def projected(self, network: Network) -> tuple[str, ...]:
        """Return the names of the layer weights that `project` constrains; empty if it changes nothing."""
        ...


class Method(Protocol):
    """A way to compress, with its settings.

        method = family.make(settings)
        method.knobs(network, widths)          (Choice("int8_ptq", ("fp32", "int8"), ordered=False),)
        evidence = method.gather(network, images, targets, seed)
        method.bind({"int8_ptq": "int8"})      an Operator
        operator.rewrite(network, evidence)    a new network

    - The knobs of one network never change. A knob's largest option (if ordered) or first option changes nothing.
    - `bind` reads only the values of this method's knobs, so that one set of values serves a whole scheme.
    - The same values and evidence give the same network, also in another process.

    `MethodContract` in compress.testing tests an implementation against this contract.
    """

    def knobs(self, network: Network, widths: Widths) -> tuple[Knob, ...]:
        """Return the knobs that a search may turn; empty if the method does not apply to the network."""
        ...

    def gather(
        self,
        network: Network,
        images: NDArray[np.float32],
        targets: Targets | None,
        seed: int,
    ) -> Evidence:
        """Gather the evidence that the method's operators will need, once per network.

        Args:
            images: (N, *input_shape) float32, real data; targets: the images' targets, None if they are not known.
        """
        ...

    def bind(self, values: Values) -> Operator:
        """Return the operator of these values.

        Raises:
            InvalidInput: no knob of the method has such a value.
        """
        ...


@dataclass(frozen=True)
class MethodFamily:
    """A method for the catalogue. Each file of compress/methods offers one as `METHOD`.

    `source` is the paper. `settings` is a frozen dataclass with Doc and Bounds. `make(settings)` returns the method.
    `lowers` names the metrics that the method can lower. `sparse` is True if the method's knobs are widths or
    densities, which one sparsity for the whole network can set.
    """

    name: str
    summary: str
    source: str
    settings: type[Any]
    make: Callable[[Any], Method]
    lowers: tuple[str, ...]
    sparse: bool = False
